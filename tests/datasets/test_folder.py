"""Your own videos: every way people write captions down, names of files, splits, and what is
refused.
"""

from pathlib import Path

import pytest

from pipeline.core.artefact import Artefact
from pipeline.datasets.base import open_dataset
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import ConfigError, DataError
from tests.datasets.layouts import write

VIDEOS = ("my clip.MP4", "sub/b.mov", "c.v2.webm")
IDS = ["c.v2", "my clip", "sub/b"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in VIDEOS:
        write(tmp_path / name, "x")
    return tmp_path


def load(root: Path, **options: object):
    return open_dataset({"type": "folder", "root": str(root), **options}).load()


def spoken(root: Path, **options: object) -> list[tuple[str, str]]:
    return [(c.video_id, c.text) for c in load(root, **options).captions.values()]


WANTED = [("my clip", "a dog, running"), ("sub/b", "a cat"), ("sub/b", "two cats")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "captions.csv",
            'video,caption\nmy clip.MP4,"a dog, running"\nb.mov,a cat\nsub/b, two cats \n',
        ),
        (
            "captions.csv",
            "\ufeffFile;Sentence\r\nmy clip;a dog, running\r\n./sub/b.mov;a cat\r\nb;two cats\r\n",
        ),
        ("captions.tsv", "id\ttext\nmy clip\ta dog, running\nb\ta cat\nb\ttwo cats"),
        ("captions.txt", "my clip\ta dog, running\nb.mov a cat\nsub\\b.mov two cats\n"),
        ("captions.txt", "my clip#0\ta dog, running\nb#0 a cat\nb#1 two cats\n"),
        (
            "captions.jsonl",
            (
                '{"video": "my clip", "caption": "a dog, running"}\n\n{"path": "b.mov", "captions":'
                ' ["a cat", "two cats"]}'
            ),
        ),
        ("captions.json", {"my clip": "a dog, running", "b": ["a cat", "two cats"]}),
        (
            "captions.json",
            [
                {"id": "my clip", "text": "a dog, running"},
                {"id": "b", "text": ["a cat", "two cats"]},
            ],
        ),
    ],
)
def test_captions_are_read_however_they_are_written(root: Path, name: str, content: object) -> None:
    write(root / name, content)

    assert spoken(root) == WANTED


def test_a_text_beside_each_video_will_do(root: Path) -> None:
    write(root / "my clip.txt", "a dog, running\n")
    write(root / "sub" / "b.txt", "a cat\r\ntwo cats")

    assert spoken(root) == WANTED


def test_ids_are_those_of_the_raw_folder(root: Path) -> None:
    write(root / "captions.csv", "video,caption\nb,a cat\n")

    videos = load(root).videos

    assert (
        list(videos) == IDS == [s.id for s in video_sources(Artefact("video_files", root)).sources]
    )
    assert videos["sub/b"].path == root / "sub" / "b.mov"


def test_videos_without_captions_and_captions_without_videos_are_noted(root: Path) -> None:
    write(root / "captions.csv", "video,caption\nb,a cat\ngone.mp4,a dog\n")

    annotations = load(root)

    assert annotations.videos["gone"].path is None
    assert annotations.notes[1:] == [
        "2 videos have no caption: c.v2, my clip",
        "1 captioned videos have no file: gone",
    ]


def test_a_column_says_the_split(root: Path) -> None:
    write(root / "captions.csv", "video,caption,split\nb,a cat,test\nmy clip,a dog,\nb,cats,test\n")

    splits = load(root).splits

    assert {name: part.video_ids for name, part in splits.items()} == {
        "train": ["my clip"],
        "test": ["sub/b"],
    }


@pytest.mark.parametrize(
    ("word", "split"),
    [("Test", "test"), ("validation", "val"), ("dev", "val"), ("TRAINING ", "train")],
)
def test_usual_words_for_splits_will_do(root: Path, word: str, split: str) -> None:
    write(root / "captions.csv", f"video,caption,split\nb,a cat,{word}\n")

    assert list(load(root).splits) == [split]


def test_without_a_column_new_videos_do_not_move_others(tmp_path: Path) -> None:
    def splits(n: int) -> dict[str, str]:
        for i in range(n):
            write(tmp_path / f"v{i}.mp4", "x")
        write(tmp_path / "captions.txt", "".join(f"v{i} a b\n" for i in range(n)))
        return {v: name for name, part in load(tmp_path).splits.items() for v in part.video_ids}

    few, many = splits(60), splits(90)

    assert set(few.values()) == {"train", "val", "test"}
    assert few.items() <= many.items()


def test_a_handful_of_videos_still_makes_three_splits(root: Path) -> None:
    write(root / "captions.txt", "c.v2 a\nmy clip.MP4\tb\nb c\n")

    assert sorted(load(root).splits) == ["test", "train", "val"]


def test_another_encoding_is_read_on_request(root: Path) -> None:
    write(root / "captions.csv", "video,caption\nb,un caf\u00e9\n".encode("windows-1252"))

    assert spoken(root, encoding="windows-1252") == [("sub/b", "un caf\u00e9")]
    with pytest.raises(DataError, match="not UTF-8: byte 0xe9 in line 2"):
        load(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "captions.csv",
            "video,caption\n../x.mp4,a\n",
            r"1 x video that is not in the folder: '../x.mp4' \(captions.csv:2",
        ),
        ("captions.csv", "video,caption\nb,\n", r"1 x caption without text: captions.csv:2"),
        ("captions.csv", "video,caption\nb,a, b\n", "needs quotes"),
        (
            "captions.csv",
            "b.mov,a cat\n",
            "no column video, caption; its first line is: b.mov, a cat",
        ),
        (
            "captions.csv",
            "video,caption,split\nb,a,probe\n",
            "split other than train, val, test: 'probe'",
        ),
        (
            "captions.jsonl",
            '{"video": "b", "caption": "a", "split": 3}',
            "split other than train, val, test: 3",
        ),
        (
            "captions.json",
            {"sentences": [{"video_id": "b", "caption": "a"}]},
            r"MSR-VTT .*\n.* another data set\?",
        ),
        (
            "captions.json",
            [{"videoID": "b", "enCap": ["a"]}],
            r"holds the VATEX release .*\n.* another data set\?",
        ),
        ("captions.csv", "video,caption,split\nb,a,test\nb,c,val\n", "1 x video in two splits"),
        ("captions.csv", 'video,caption\nb,"a\n', "Are its quotes closed"),
        ("captions.txt", "b.mov\n", "line without a video and a caption"),
        ("captions.jsonl", "{\n", "1 x line that is not JSON"),
        ("captions.jsonl", '{"video": "b"}\n', "1 x entry without a video and a caption"),
        ("captions.json", "3", "neither a list nor an object"),
        ("captions.json", {"b": [1]}, "1 x caption that is no text: 1"),
        ("captions.txt", "\n", "1 x folder without a caption"),
    ],
)
def test_wrong_captions_are_explained(root: Path, name: str, content: object, message: str) -> None:
    write(root / name, content)

    with pytest.raises(DataError, match=message):
        load(root)


def test_whole_path_goes_before_a_name_that_several_videos_have(root: Path) -> None:
    for name in ("x.mp4", "other/x.mp4"):
        write(root / name, "x")
    write(root / "captions.txt", "x.mp4 a cat\nother/x.mp4 a dog\n")

    assert spoken(root) == [("x", "a cat"), ("other/x", "a dog")]


def test_name_of_several_videos_is_refused(root: Path) -> None:
    write(root / "other" / "b.mp4", "x")
    write(root / "captions.txt", "b a cat\n")

    with pytest.raises(DataError, match="1 x name that several videos have: 'b': other/b, sub/b"):
        load(root)


def test_several_caption_files_are_refused_and_one_may_be_named(root: Path) -> None:
    for name in ("captions.txt", "captions.tsv", "mine.txt"):
        write(root / name, "video\tcaption\nb\ta cat\n")

    with pytest.raises(
        DataError, match="several caption files: captions.tsv, captions.txt\n.*captions"
    ):
        load(root)
    assert ("sub/b", "a cat") in spoken(root, captions="mine.txt")


def test_missing_folder_and_unknown_encoding_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder\n.*root"):
        load(tmp_path / "gone")
    with pytest.raises(ConfigError, match="encoding 'utf8000' is unknown"):
        load(tmp_path, encoding="utf8000")


def test_expected_files_say_what_is_there(root: Path) -> None:
    dataset = open_dataset({"type": "folder", "root": str(root)})
    before = [file.status for file in dataset.expected_files()]

    write(root / "sub" / "b.txt", "a cat")

    assert before == ["missing", "3 found"]
    assert [file.status for file in dataset.expected_files()] == ["found", "3 found"]
