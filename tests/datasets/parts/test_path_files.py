"""The published path files: what is written, and that published files come out byte for byte."""

import json
from pathlib import Path

import pytest

import cli
from pipeline.datasets.base import Annotations, Caption, Faults, Split, Video, open_dataset
from pipeline.datasets.parts import path_files
from pipeline.datasets.parts.video_files import read_list
from pipeline.errors import DataError


def films(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_video_paths_are_sorted_by_name_without_the_last_suffix(tmp_path: Path):
    films(tmp_path, "b.mp4", "x/a.b.avi", "x/100@N08.3gp.mp4", "notes.txt")

    assert list(path_files.video_paths(tmp_path).items()) == [
        ("100@N08.3gp", "x/100@N08.3gp.mp4"),
        ("a.b", "x/a.b.avi"),
        ("b", "b.mp4"),
    ]


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(
        DataError, match="1 x name that two videos have: a/film.mp4 and b/film.avi"
    ) as caught:
        path_files.video_paths(films(tmp_path, "a/film.mp4", "b/film.avi"))

    assert "rename one" in caught.value.fix


@pytest.mark.parametrize("names", [[], ["notes.txt"]])
def test_a_folder_without_videos_is_refused(names: list[str], tmp_path: Path):
    with pytest.raises(DataError, match="no video in it|no such folder"):
        path_files.video_paths(films(tmp_path / "films", *names))


def test_the_lists_of_the_fork(tmp_path: Path):
    videos = {"a": Video("a", start=1.5, end=4.0), "b": Video("b")}
    captions = {"b#0": Caption("b#0", "b", "second"), "a#0": Caption("a#0", "a", "first")}
    annotations = Annotations(videos, captions, {"test": Split(["b#0", "a#0"], ["a", "b"])})

    assert path_files.fork_videos(annotations, "test", {"a": "v/a.mp4"}) == (
        {"a": "v/a.mp4"},
        ["b"],
    )
    assert path_files.fork_sentences(annotations, "test") == {
        "0": ["b", ["second", None, None]],
        "1": ["a", ["first", 1.5, 4.0]],
    }


def test_published_files_come_out_byte_for_byte(shared: Path):
    folder = shared / "data/annotations"
    for path in [
        folder / "activitynet/video_path.json",
        *(folder / "msrvtt").glob("drl_fork_*.json"),
    ]:
        assert path_files.text(json.loads(path.read_bytes())).encode() == path.read_bytes()


def test_the_lists_of_the_fork_are_made_anew_from_the_published_csv(shared: Path, tmp_path: Path):
    ours = {"type": "msrvtt", "root": str(shared / "data/annotations/msrvtt"), "split": "9k"}
    sentences = json.loads(
        (shared / "data/annotations/msrvtt/drl_fork_sentence_dict.json").read_bytes()
    )
    films(tmp_path, "MSRVTT_JSFUSION_test.csv")
    captions = [{"video_id": f"video{n}", "caption": "x", "sen_id": n} for n in range(10_000)]
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps({"sentences": captions, "videos": []}))
    for name in ("MSRVTT_JSFUSION_test.csv", "MSRVTT_train.9k.csv"):
        (tmp_path / name).write_bytes((Path(ours["root"]) / name).read_bytes())

    annotations = open_dataset(ours | {"root": str(tmp_path)}).load()

    assert path_files.fork_sentences(annotations, "test") == sentences


def test_the_command_writes_three_files_that_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    films(tmp_path / "films", "a.mp4", "x/b.mp4")
    (tmp_path / "test.caption.txt").write_text("b#0 one\na#0 two\nc#0 three\n")

    code = cli.main(
        ["paths", "films", "--dataset", "test.caption.txt", "--split", "train", "--out", "lists"]
    )

    faults = Faults("lists")
    assert code == 0
    assert read_list(Path("lists/video_path.json"), faults) == {"a": "a.mp4", "b": "x/b.mp4"}
    assert read_list(Path("lists/video_dict.json"), faults) == {
        "b": "films/x/b.mp4",
        "a": "films/a.mp4",
    }
    assert json.loads(Path("lists/sentence_dict.json").read_bytes())["2"] == [
        "c",
        ["three", None, None],
    ]
    assert not faults


def test_an_unknown_split_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    films(tmp_path / "films", "a.mp4")
    (tmp_path / "c.caption.txt").write_text("a#0 one\n")

    code = cli.main(
        [
            "paths",
            str(tmp_path / "films"),
            "--dataset",
            str(tmp_path / "c.caption.txt"),
            "--out",
            str(tmp_path),
        ]
    )

    assert code == 4
    assert "there is no split 'test'" in capsys.readouterr().err
