"""MSVD: the pickle and its JSON, order of captions, and pickles that try to run something."""

import os
import pickle
from pathlib import Path

import pytest

from pipeline.datasets.base import open_dataset
from pipeline.errors import DataError
from tests.datasets.layouts import CLIPS, msvd, write


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was-here",)


def load(root: Path, **options: object):
    return open_dataset({"type": "msvd", "root": str(root), **options}).load()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_words_are_joined_videos_in_list_order_captions_in_file_order(
    tmp_path: Path, protocol: int
) -> None:
    msvd(tmp_path)
    value = {CLIPS[1]: [["a", "b"], ["c"]], CLIPS[0]: [["caf\xe9"]], CLIPS[2]: [["d"]]}
    write(tmp_path / "raw-captions.pkl", pickle.dumps(value, protocol))
    write(tmp_path / "test_list.txt", "\r\n".join(CLIPS))

    annotations = load(tmp_path)

    assert [c.text for c in annotations.texts("test")] == ["caf\xe9", "a b", "c", "d"]
    assert annotations.targets("test").tolist() == [0, 1, 1, 2]


def test_strings_of_python_2_are_read(tmp_path: Path) -> None:
    # {"-4wsuPCjDBc_5_15": [["a"]]} as Python 2 writes it, protocol 2: byte strings (opcode U)
    data = b"\x80\x02}q\x00U\x10-4wsuPCjDBc_5_15q\x01]q\x02]q\x03U\x01aq\x04aas."
    write(msvd(tmp_path) / "raw-captions.pkl", data)
    for split in ("val", "test"):
        write(tmp_path / f"{split}_list.txt", CLIPS[0])

    assert [c.text for c in load(tmp_path).texts("train")] == ["a"]


def test_json_is_read_first_and_says_the_same(tmp_path: Path) -> None:
    before = load(msvd(tmp_path))
    captions = {
        clip: [c.text for c in before.captions.values() if c.video_id == clip] for clip in CLIPS
    }
    write(tmp_path / "raw-captions.json", captions)
    (tmp_path / "raw-captions.pkl").write_bytes(b"broken")

    assert load(tmp_path).captions == before.captions


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Hostile(), "asks for posix.system, which was refused"),
        ({CLIPS[0]: [[Hostile()]]}, "asks for posix.system, which was refused"),
        ([1, 2], "holds a list, not captions by video"),
        ({}, "holds an empty dict"),
        ({CLIPS[0]: []}, "1 x video without a caption"),
        ({CLIPS[0]: "text"}, "entry that is not an id with a list of captions"),
        ({CLIPS[0]: [["a", 3]]}, "caption that is no text"),
        ({CLIPS[0]: [["a"]]}, "2 x id of a split that has no captions"),
    ],
)
def test_wrong_pickles_are_refused_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(msvd(tmp_path) / "raw-captions.pkl", pickle.dumps(value))

    with pytest.raises(DataError, match=message):
        load(tmp_path)

    assert not (tmp_path / "was-here").exists()


def test_published_lists_have_the_published_counts(tmp_path: Path, shared: Path) -> None:
    lists = {
        split: shared / "data/annotations/msvd" / f"{split}_list.txt"
        for split in ("train", "val", "test")
    }
    ids = {i for path in lists.values() for i in path.read_text().split()}
    write(tmp_path / "raw-captions.json", {i: ["a"] for i in ids})

    annotations = load(tmp_path, **{split: str(path) for split, path in lists.items()})

    assert {n: len(s.video_ids) for n, s in annotations.splits.items()} == {
        "train": 1200,
        "val": 100,
        "test": 670,
    }
