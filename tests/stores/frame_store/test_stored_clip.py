"""Chosen frames of a frame store."""

import numpy as np
import pytest

from pipeline.errors import ItemError
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.frame_store.stored_clip import read_clip
from pipeline.video.frame_rule import FrameChoice, Limits
from tests.stores.frame_store.frame_clips import build_store, images


@pytest.fixture
def store(tmp_path):
    return FrameStore.open(
        build_store(tmp_path, {"v": images(0, 40)}, codec="raw")
    )  # 3 frames per second


@pytest.mark.parametrize(
    ("choice", "numbers"),
    [
        (FrameChoice("all"), range(40)),
        (FrameChoice("half-second"), [n for n in range(40) if n % 3 < 2]),
        (FrameChoice.every(1.0), range(0, 40, 3)),
        (FrameChoice.every(5.0), [0, 15, 30]),
    ],
)
def test_frames_are_chosen_by_the_times_in_the_store(store, choice, numbers):
    frames = list(read_clip(store, "v", choice, Limits()))

    assert [f.source_index for f in frames] == list(numbers)
    assert all((f.image == images(0, 40)[f.source_index]).all() for f in frames)
    assert np.diff([f.time_ms for f in frames]).min() > 0


def test_a_video_that_is_not_there_costs_only_itself(store):
    with pytest.raises(ItemError, match="missing"):
        list(read_clip(store, "w", FrameChoice("all"), Limits()))


def test_a_damaged_value_costs_only_its_video(tmp_path):
    path = build_store(tmp_path, {"v": images(0, 8)}, codec="raw")
    file = path if path.is_file() else path / "frames.lmdb"
    data = file.read_bytes()
    at = data.rindex(images(0, 8)[3, :8].tobytes())
    file.write_bytes(data[:at] + b"damage" + data[at + 6 :])

    with pytest.raises(ItemError, match="bad_value"):
        list(read_clip(FrameStore.open(file), "v", FrameChoice("all"), Limits()))
