"""ActivityNet: paragraphs, order of the lists, file names of each system, counts on the real
files.
"""

import json
from pathlib import Path

import pytest

from pipeline.datasets.base import open_dataset
from pipeline.errors import DataError
from tests.datasets.layouts import activitynet, write


def load(root: Path, **options: object):
    return open_dataset({"type": "activitynet", "root": str(root), **options}).load()


def counts(annotations) -> dict[str, tuple[int, int]]:
    return {
        name: (len(part.video_ids), len(part.caption_ids))
        for name, part in annotations.splits.items()
    }


def test_paragraph_is_all_sentences_in_the_order_of_the_id_list(tmp_path: Path) -> None:
    annotations = load(activitynet(tmp_path))

    assert annotations.split("train").video_ids[0] == "v_00000000037"
    assert annotations.texts("train")[-1].text == "One.  Two."
    assert annotations.split("val") == annotations.split("test")
    assert (
        annotations.notes[0]
        == "train_ids.json: 1 of 40 ids have no captions and are skipped: v_gone"
    )


def test_segment_is_the_whole_video_to_the_next_second(tmp_path: Path) -> None:
    video = load(activitynet(tmp_path)).videos["v_v_abc"]

    assert (video.start, video.end) == (0.0, 83.0)


@pytest.mark.parametrize(("names", "file"), [("bare", "v_abc.mp4"), ("prefixed", "v_v_abc.mkv")])
def test_files_are_called_as_each_system_expects(tmp_path: Path, names: str, file: str) -> None:
    path = write(activitynet(tmp_path) / "videos" / file, "x")

    assert load(tmp_path, file_names=names).videos["v_v_abc"].path == path


def test_list_of_mostly_unknown_ids_is_refused(tmp_path: Path) -> None:
    write(activitynet(tmp_path) / "train_ids.json", ["v_v_abc", "v_1", "v_2"])

    with pytest.raises(
        DataError, match=r"2 x id of a split that has no captions: 'v_1' \(train_ids.json\)"
    ):
        load(tmp_path)


@pytest.mark.parametrize("duration", ["1e400", "-1", "0", "true", '"3"', "null", "9" * 400])
def test_duration_that_is_none_is_refused(tmp_path: Path, duration: str) -> None:
    write(
        activitynet(tmp_path) / "val_1.json",
        f'{{"v_x": {{"duration": {duration}, "timestamps": [], "sentences": ["a"]}}}}',
    )

    with pytest.raises(DataError, match="video without a duration in seconds"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"duration": 3, "timestamps": [], "sentences": []},
            "video without a list of sentences: val_1.json: 'v_x'",
        ),
        (
            {"duration": "3", "timestamps": [], "sentences": ["a"]},
            "video without a duration in seconds: '3'",
        ),
        ({"duration": 3, "timestamps": [], "sentences": [None]}, "caption that is no text: None"),
    ],
)
def test_wrong_entries_are_explained(tmp_path: Path, entry: dict, message: str) -> None:
    write(activitynet(tmp_path) / "val_1.json", {"v_x": entry})

    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_real_files_give_the_measured_counts(shared: Path) -> None:
    annotations = load(shared / "data/annotations/activitynet")

    assert counts(annotations) == {
        "train": (10_009, 10_009),
        "test": (4917, 4917),
        "val": (4917, 4917),
    }
    assert "train: 10,009 paragraphs of 37,421 sentences" in annotations.notes
    assert "test: 4,917 paragraphs of 17,505 sentences" in annotations.notes


def test_real_files_as_centerclip_and_dgl_read_them(shared: Path) -> None:
    options = {"video_paths": "video_path.json", "only_listed": True, "exclude": ["centerclip"]}
    dataset = open_dataset(
        {"type": "activitynet", "root": str(shared / "data/annotations/activitynet"), **options}
    )

    found = counts(dataset.load())

    assert found == dataset.published_counts()
    assert (found["train"], found["test"]) == ((9933, 9933), (4869, 4869))


def test_val_2_is_a_list_of_the_same_captions(shared: Path) -> None:
    annotations = load(shared / "data/annotations/activitynet", test_ids="val_2_list.txt")

    assert counts(annotations)["test"] == (4885, 4885)


def test_plain_lists_give_the_same_videos_in_the_order_of_the_captions(shared: Path) -> None:
    root = shared / "data/annotations/activitynet"
    plain = load(root, train_ids="train_list.txt", test_ids="val_1_list.txt")

    assert plain.split("train").video_ids == list(json.loads((root / "train.json").read_text()))
    assert sorted(plain.split("test").video_ids) == sorted(load(root).split("test").video_ids)
