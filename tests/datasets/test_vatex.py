"""VATEX: both caption files, DGL's validation on the test list, counts on the real lists."""

from pathlib import Path

import pytest

from pipeline.datasets.base import open_dataset
from pipeline.errors import DataError
from tests.datasets.layouts import vatex, write


def load(root: Path, **options: object):
    return open_dataset({"type": "vatex", "root": str(root), **options}).load()


def test_both_layouts_say_the_same(tmp_path: Path) -> None:
    dgl = load(vatex(tmp_path))
    captions = {
        v: {"enCap": [c.text for c in dgl.captions.values() if c.video_id == v]} for v in dgl.videos
    }
    write(tmp_path / "vatex_data.json", captions)

    emcl = load(tmp_path, captions="vatex_data.json")

    assert (emcl.captions, emcl.splits) == (dgl.captions, dgl.splits)


def test_the_released_files_say_the_same(tmp_path: Path) -> None:
    dgl = load(vatex(tmp_path))
    texts = {v: [c.text for c in dgl.captions.values() if c.video_id == v] for v in dgl.videos}
    entries = [{"videoID": v, "enCap": found, "chCap": ["x"]} for v, found in texts.items()]
    (tmp_path / "ref_captions.json").unlink()
    write(tmp_path / "vatex_training_v1.0.json", entries[:1])
    write(tmp_path / "vatex_validation_v1.0.json", entries[1:])

    released = load(tmp_path)

    assert (released.captions, released.splits) == (dgl.captions, dgl.splits)
    assert (
        released.notes[0]
        == "vatex_training_v1.0.json: the VATEX release (videoID, enCap), 2 captions"
    )


def test_a_video_in_both_released_files_is_refused(tmp_path: Path) -> None:
    vatex(tmp_path)
    for name in ("a.json", "b.json"):
        write(tmp_path / name, [{"videoID": "x_0_1", "enCap": ["a"]}])

    with pytest.raises(DataError, match=r"1 x video in two caption files: 'x_0_1' \(b.json\)"):
        load(tmp_path, captions=["a.json", "b.json"])


def test_dgl_validates_on_the_test_list(tmp_path: Path) -> None:
    annotations = load(vatex(tmp_path), val="test_list.txt")

    assert annotations.split("val") == annotations.split("test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"enCap": []}}, "video without a list of captions"),
        (
            [{"videoID": "a", "enCap": ["b"]}, {"videoID": "a", "enCap": ["c"]}],
            "1 x video that occurs twice",
        ),
        ([{"videoID": "a", "enCap": ["b"]}, {"videoID": 3}], "1 x entry without a videoID"),
        ([{"videoID": "a", "chCap": ["b"]}], "holds a list of unknown layout"),
        (
            {"a": "b.mp4"},
            "holds a text by video, not lists of captions by video or captions of VATEX",
        ),
    ],
)
def test_wrong_caption_files_are_explained(tmp_path: Path, content: object, message: str) -> None:
    write(vatex(tmp_path) / "ref_captions.json", content)

    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_real_lists_with_ten_captions_give_the_published_counts(
    tmp_path: Path, shared: Path
) -> None:
    lists = {
        split: shared / "data/annotations/vatex" / f"{split}_list.txt"
        for split in ("train", "val", "test")
    }
    ids = [i for path in lists.values() for i in path.read_text().split()]
    write(tmp_path / "ref_captions.json", {i: [f"c{n}" for n in range(10)] for i in ids})
    options = {split: str(path) for split, path in lists.items()}
    dataset = open_dataset({"type": "vatex", "root": str(tmp_path), **options})

    counts = {n: (len(s.video_ids), len(s.caption_ids)) for n, s in dataset.load().splits.items()}

    assert counts == dataset.published_counts()


def test_second_half_of_the_official_validation_set(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data/annotations/vatex"
    lists = {"train": "train_list.txt", "val": "val_list.txt", "test": "test1k5_sec_list.txt"}
    ids = {i for path in folder.glob("*.txt") for i in path.read_text().split()}
    write(tmp_path / "ref_captions.json", {i: ["a"] for i in ids})

    annotations = load(tmp_path, **{split: str(folder / name) for split, name in lists.items()})

    assert len(annotations.split("test").video_ids) == 1500
    assert (
        len(set(annotations.split("test").video_ids) & set(annotations.split("val").video_ids))
        == 776
    )
