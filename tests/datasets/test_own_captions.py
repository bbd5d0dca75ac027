"""Tables and files of one's own captions: which columns count, moments, layouts, rows left out."""

import json
import unicodedata
from pathlib import Path

import pytest

from pipeline.datasets.base import Annotations, open_dataset
from pipeline.errors import ConfigError, DataError
from tests.datasets.layouts import write


def folder(root: Path, *videos: str) -> Path:
    for name in videos:
        write(root / name, "x")
    return root


def load(root: Path, **options: object) -> Annotations:
    return open_dataset({"type": "folder", "root": str(root), **options}).load()


def spoken(loaded: Annotations) -> list[tuple[str, str]]:
    return [(c.video_id, c.text) for c in loaded.captions.values()]


def in_splits(loaded: Annotations) -> dict[str, list[str]]:
    return {name: part.video_ids for name, part in loaded.splits.items()}


def test_columns_are_chosen_by_preference_and_all_are_named(tmp_path: Path) -> None:
    folder(tmp_path, "k1.mp4", "k2.mp4")
    table = "id,video,title,caption\n1,k1.mp4,IMG_1,a person cooks\n2,k2.mp4,IMG_2,a dog\n"
    write(tmp_path / "captions.csv", table)

    loaded = load(tmp_path)

    assert spoken(loaded) == [("k1", "a person cooks"), ("k2", "a dog")]
    assert loaded.notes[0] == (
        "captions.csv: videos in column video, captions in column caption; not read: id, title"
    )


def test_of_two_video_columns_the_one_that_names_files_counts(tmp_path: Path) -> None:
    folder(tmp_path, "k1.mp4")
    write(tmp_path / "captions.csv", "video_id,path,caption\n77,k1.mp4,a dog\n")

    assert spoken(load(tmp_path)) == [("k1", "a dog")]


@pytest.mark.parametrize("column", ["Split", "SUBSET", "set", "Partition", "data split"])
def test_a_split_column_is_one_by_any_usual_name(tmp_path: Path, column: str) -> None:
    folder(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "captions.csv", f"video,caption,{column}\na,x,Train\nb,y,test\n")

    loaded = load(tmp_path)

    assert in_splits(loaded) == {"train": ["a"], "test": ["b"]}
    assert loaded.origin == "as the file says"


def test_a_column_called_set_that_holds_no_splits_is_not_read(tmp_path: Path) -> None:
    folder(tmp_path, "a.mp4")
    write(tmp_path / "captions.csv", "video,caption,set\na,x,blue\n")

    assert "not read: set" in load(tmp_path).notes[0]


def test_starts_and_ends_become_moments_in_one_split(tmp_path: Path) -> None:
    folder(tmp_path, "film.mp4", "other.mp4")
    rows = "".join(f"film.mp4,{n},0:{n + 1:02}.5,moment {n}\n" for n in range(20))
    write(tmp_path / "captions.csv", f"video,start,end,caption\n{rows}other.mp4,,,whole\n")

    loaded = load(tmp_path)

    assert len(loaded.videos) == 21
    assert "film" not in loaded.videos
    first = loaded.videos["film@0-1.5"]
    assert (first.path, first.start, first.end) == (tmp_path / "film.mp4", 0.0, 1.5)
    assert loaded.videos["other"].start is None
    assert len([s for s, part in loaded.splits.items() if "film@3-4.5" in part.video_ids]) == 1
    assert all(
        sum(i.startswith("film@") for i in part.video_ids) in (0, 20)
        for part in loaded.splits.values()
    )
    assert any("20 moments of 1 films" in note for note in loaded.notes)


def test_a_moment_that_ends_before_it_starts_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, "film.mp4")
    write(tmp_path / "captions.csv", "video,start,end,caption\nfilm,5,2,x\n")

    with pytest.raises(DataError, match=r"1 x moment that is none: '2' is not after '5'"):
        load(tmp_path)


@pytest.mark.parametrize(
    "cell",
    ["['a cat sits', 'a kitten']", '["a cat sits", "a kitten"]', "['a cat sits' 'a kitten']"],
)
def test_a_list_written_as_text_is_a_list(tmp_path: Path, cell: str) -> None:
    folder(tmp_path, "a.mp4")
    quoted = cell.replace('"', '""')
    write(tmp_path / "captions.csv", f'video,caption\na,"{quoted}"\n')

    assert spoken(load(tmp_path)) == [("a", "a cat sits"), ("a", "a kitten")]


@pytest.mark.parametrize("cell", ["", "NULL", "nan", "N/A", "None", " "])
def test_a_missing_caption_is_left_out_with_a_count_or_refused(tmp_path: Path, cell: str) -> None:
    folder(tmp_path, *(f"v{n}.mp4" for n in range(40)))
    rows = "".join(f"v{n},thing {n}\n" for n in range(39))
    write(tmp_path / "captions.csv", f"video,caption\n{rows}v39,{cell}\n")

    loaded = load(tmp_path)

    assert len(loaded.captions) == 39
    assert any(n.startswith("1 bad row is left out: 1 x caption without") for n in loaded.notes)
    with pytest.raises(DataError, match="1 x caption without text.*\n.*bad_rows: drop"):
        load(tmp_path, bad_rows="refuse")


def test_many_bad_rows_are_refused_unless_they_are_to_be_dropped(tmp_path: Path) -> None:
    folder(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "captions.csv", "video,caption\na,nan\nb,a dog, running\na,a cat\n")

    with pytest.raises(DataError, match="1 x row without 2 values"):
        load(tmp_path)
    assert spoken(load(tmp_path, bad_rows="drop")) == [("a", "a cat")]


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ("caf\u00e9.mp4", unicodedata.normalize("NFD", "caf\u00e9.mp4")),
        ("CLIP.mp4", "clip.MP4"),
        ("sub/c.avi", "sub/c.mp4"),
        ("ROOT/sub/c.mp4", "sub/c.mp4"),
        ("/home/other/mine/sub/c.mp4", "sub/c.mp4"),
        ("C:\\films\\c.mp4", "sub/c.mp4"),
        ("1.0", "1.mp4"),
        ("7", "0007.mp4"),
        ("0012.mp4", "12.mp4"),
    ],
)
def test_a_caption_finds_its_video_by_any_form_of_its_name(
    tmp_path: Path, said: str, file: str
) -> None:
    folder(tmp_path / "mine", file, "x/other.mp4")
    row = {"video": said.replace("ROOT", str(tmp_path / "mine")), "caption": "a cat"}
    write(tmp_path / "mine/captions.json", [row])

    assert [i for i, _ in spoken(load(tmp_path / "mine"))] == [file.rpartition(".")[0]]


def test_a_path_into_another_folder_is_not_the_video_of_that_name(tmp_path: Path) -> None:
    folder(tmp_path, "train/0001.mp4")
    write(tmp_path / "captions.csv", "video,caption\ntest/0001.mp4,a cat\n")

    assert load(tmp_path).videos["test/0001"].path is None


@pytest.mark.parametrize("name", ["gone.mp4", "gone one.mp4", "sub/gone.mp4", "g\u00f6ne.mp4"])
def test_a_lost_file_is_one_verdict_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder(tmp_path, "a.mp4")
    write(tmp_path / "captions.csv", f"video,caption\na,a dog\n{name},a cat\n")

    loaded = load(tmp_path)

    missing = name.removesuffix(".mp4")
    assert loaded.videos[missing].path is None
    assert loaded.notes[-1] == f"1 captioned videos have no file: {missing}"


def test_the_nearest_name_is_suggested(tmp_path: Path) -> None:
    folder(tmp_path, "kitchen_01.mp4")
    write(tmp_path / "captions.csv", "video,caption\nkichen_01,a cat\n")

    assert load(tmp_path).notes[-1].endswith("kichen_01 (is it kitchen_01?)")


LAYOUTS = {
    "captions.json": {"train": [{"video": "a", "caption": "one"}], "Val": {"b.mp4": ["two"]}},
    "metadata.jsonl": '{"file_name": "a.mp4", "text": "one"}\n{"file_name": "b.mp4", "text": "two"}',
    "metadata.csv": "file_name,text\na.mp4,one\nb.mp4,two\n",
    "annotations.json": {
        "images": [{"id": 1, "file_name": "a.mp4"}, {"id": 2, "file_name": "b.mp4"}],
        "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": 2, "caption": "two"}],
    },
    "captions.tsv": "video\tcaption\na\tone\nb\ttwo\n",
    "captions.jsonl": '{"video": "a", "golden_caption": ["one"]}\n{"video": "b", "caption": "two"}',
    "captions.csv": "a.mp4,one\nb.mp4,two\n",
    "AllVideoDescriptions.txt": "# a remark\n\na one\nb two\n",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_other_projects_are_read(tmp_path: Path, name: str) -> None:
    folder(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / name, LAYOUTS[name])

    assert spoken(load(tmp_path)) == [("a", "one"), ("b", "two")]


def test_a_folder_without_captions_lists_what_would_do(tmp_path: Path) -> None:
    folder(tmp_path, "a.mp4")

    with pytest.raises(
        DataError, match=r"without a caption.*\n.*captions.csv.*metadata.jsonl.*clip"
    ):
        load(tmp_path)


@pytest.mark.parametrize("name", ["MSRVTT_JSFUSION_test.csv", "toy-test.csv"])
def test_a_list_that_is_called_test_is_ranked_whole(tmp_path: Path, name: str) -> None:
    rows = "".join(f"ret{n},msr{n},video{n},thing {n}\n" for n in range(30))
    write(tmp_path / name, f"key,vid_key,video_id,sentence\n{rows}")

    loaded = load(tmp_path, captions=str(tmp_path / name), captions_only=True)

    assert len(loaded.split("test").caption_ids) == 30
    assert loaded.origin == f"all test, as {name} is called"


def test_all_is_every_split_together(tmp_path: Path) -> None:
    folder(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "captions.csv", "video,caption,split\na,x,train\nb,y,test\nb,z,test\n")

    loaded = load(tmp_path)

    assert loaded.split("all").video_ids == ["a", "b"]
    assert loaded.targets("all").tolist() == [0, 1, 1]
    assert loaded.said("test") == (
        "split test: 1 of 2 videos and 2 of 3 captions (splits as the file says)"
    )


def test_clips_of_one_film_stay_in_one_split(tmp_path: Path) -> None:
    names = [f"{film}_{n:02}" for film in ("casa", "alien", "ran", "brazil") for n in range(12)]
    folder(tmp_path, *(f"{name}.mp4" for name in names))
    plain = "".join(f"{name},text {name}\n" for name in names)
    grouped = "".join(f"{name},text {name},{name[:3]}\n" for name in names)

    write(tmp_path / "captions.csv", f"video,caption\n{plain}")
    alone, by_pattern = load(tmp_path), load(tmp_path, group_pattern="^[a-z]+")
    write(tmp_path / "captions.csv", f"video,caption,group\n{grouped}")
    by_column = load(tmp_path)

    assert any("films, by the names of their clips, lie in several" in n for n in alone.notes)
    for loaded in (by_pattern, by_column):
        splits = [{i[:3] for i in part.video_ids} for part in loaded.splits.values()]
        assert sum(map(len, splits)) == len(set().union(*splits)) == 4
        assert not any("several splits" in note for note in loaded.notes)


def test_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular expression"):
        load(tmp_path, group_pattern="(")


def test_json_with_surrogates_and_depth_is_refused_not_crashed(tmp_path: Path) -> None:
    folder(tmp_path, "a.mp4")
    write(tmp_path / "captions.json", json.dumps([{"video": "a", "caption": "\ud800"}]))

    with pytest.raises(DataError, match="lone surrogate"):
        load(tmp_path)
