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
    captions = {v: {"enCap": [c.text for c in dgl.captions.values() if c.video_id == v]} for v in dgl.videos}
    write(tmp_path / "vatex_data.json", captions)

    emcl = load(tmp_path, captions="vatex_data.json")

    assert (emcl.captions, emcl.splits) == (dgl.captions, dgl.splits)


def test_dgl_validates_on_the_test_list(tmp_path: Path) -> None:
    annotations = load(vatex(tmp_path), val="test_list.txt")

    assert annotations.split("val") == annotations.split("test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"enCap": []}}, "video without a list of captions"),
        ([{"videoID": "a", "enCap": ["b"]}], "holds the VATEX release"),
        ({"a": "b.mp4"}, "holds a text by video, not lists of captions by video or captions of VATEX"),
    ],
)
def test_wrong_caption_files_are_explained(tmp_path: Path, content: object, message: str) -> None:
    write(vatex(tmp_path) / "ref_captions.json", content)

    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_real_lists_with_ten_captions_give_the_published_counts(tmp_path: Path, shared: Path) -> None:
    lists = {split: shared / "data/annotations/vatex" / f"{split}_list.txt" for split in ("train", "val", "test")}
    ids = [i for path in lists.values() for i in path.read_text().split()]
    write(tmp_path / "ref_captions.json", {i: [f"c{n}" for n in range(10)] for i in ids})
    options = {split: str(path) for split, path in lists.items()}
    dataset = open_dataset({"type": "vatex", "root": str(tmp_path), **options})

    counts = {n: (len(s.video_ids), len(s.caption_ids)) for n, s in dataset.load().splits.items()}

    assert counts == dataset.published_counts()
