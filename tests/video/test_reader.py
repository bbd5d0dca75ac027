"""Probing and reading videos, against recorded frames where ../shared is."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ItemError
from pipeline.video.reader import (
    FrameChoice,
    SizeRule,
    decode_clip,
    iterate_clip,
    probe,
    read_frames,
)
from tests.videos import Film, index_of, write

ORACLES = ["tc_av1_video.mkv.stream0", "tc_h265_video.mp4.stream0", "tc_nasa_13013.mp4.stream3"]


def test_probe_says_what_is_shown(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=30, rotation=90))

    info = probe(path)

    assert (info.width, info.height, info.frames) == (120, 160, 30)
    assert (info.fps, info.seconds, info.codec) == (25, pytest.approx(1.2), "h264")


def test_a_container_that_does_not_count_says_none(tmp_path: Path):
    path = write(tmp_path / "film.mkv", Film(frames=30, muxer={}))

    assert probe(path).frames is None
    assert probe(path).seconds == pytest.approx(1.2)


def test_read_returns_frames_in_the_order_asked(tmp_path: Path):
    path = write(tmp_path / "film.mp4")

    images = read_frames(path, [40, 3, 3, 17])

    assert images.shape == (4, 120, 160, 3)
    assert images.dtype == np.uint8
    assert [index_of(image) for image in images] == [40, 3, 3, 17]


def test_read_fails_beyond_the_last_frame(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=10))

    with pytest.raises(ItemError, match="only 10 frames decode"):
        read_frames(path, [0, 10])
    with pytest.raises(ValueError, match="start at 0"):
        read_frames(path, [-1])


def test_bytes_read_like_files(tmp_path: Path):
    path = write(tmp_path / "film.mp4")

    from_file, from_bytes = (
        decode_clip(source, FrameChoice(), SizeRule()) for source in (path, path.read_bytes())
    )

    assert np.array_equal(from_file.images, from_bytes.images)
    assert from_bytes.status == "ok"
    assert probe(path) == probe(path.read_bytes())


def test_a_clip_carries_times_and_source_frames(tmp_path: Path):
    times = [0, 33, 67, 100, 200, 300, 400, 1400]
    path = write(tmp_path / "film.mp4", Film(frames=8, times=times))

    clip = decode_clip(path, FrameChoice.at(5))

    assert [index_of(image) for image in clip.images] == clip.source_index.tolist()
    assert clip.source_index.tolist()[:8] == [0, 4, 6, 6, 6, 6, 6, 7]
    assert clip.times_ms.tolist() == [times[i] for i in clip.source_index]
    assert (clip.fps, clip.decoded) == (5, 8)


def test_every_second_and_half_second_choices(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=60))

    assert decode_clip(path, FrameChoice.every(1)).source_index.tolist() == [0, 25, 50]
    half = decode_clip(path, FrameChoice("half-second"))
    assert half.source_index.tolist() == [0, 12, 25, 37, 50]
    assert half.fps == 2


def test_one_frame_is_one_slot(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=1))

    for rule in ("grid", "published", "all", "half-second"):
        assert len(decode_clip(path, FrameChoice(rule)).images) == 1


def test_iterating_gives_the_clip(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=5, fps=1))

    reader = iterate_clip(path, FrameChoice(), SizeRule())
    frames = list(reader)
    clip = decode_clip(path, FrameChoice(), SizeRule())

    assert sum(frame.repeats for frame in frames) == len(clip.images) == 15
    assert np.array_equal(np.concatenate([[f.image] * f.repeats for f in frames]), clip.images)
    assert (reader.width, reader.height, reader.fps, reader.status) == (298, 224, Fraction(3), "ok")


@pytest.mark.parametrize("oracle", ORACLES)
def test_frames_are_bit_equal_to_the_recorded_ones(oracle: str, shared: Path):
    recorded = np.load(shared / f"data/videos/oracles/{oracle}.npz")
    source = shared / "data/videos" / oracle.rpartition(".")[0]

    images = read_frames(source, recorded["frame_index"].tolist())

    assert np.array_equal(images, recorded["frames"])


def test_recorded_timestamps_of_a_whole_stream(shared: Path):
    recorded = np.load(shared / "data/videos/oracles/tc_nasa_13013.mp4.stream3.npz")[
        "all_pts_seconds"
    ]

    clip = decode_clip(
        shared / "data/videos/tc_nasa_13013.mp4", FrameChoice("all"), SizeRule("square", 16)
    )

    assert np.abs(clip.times_ms / 1000 - (recorded - recorded[0])).max() < 0.001


def test_published_half_second_frames_are_found_at_their_index(shared: Path):
    source = shared / "data/videos/vcf_shot00001_1.webm"
    jpegs = {
        int(path.stem.rpartition("_")[2]): path
        for path in source.parent.glob("oracles/vcf_shot00001_1/*.jpg")
    }
    assert decode_clip(
        source, FrameChoice("half-second"), SizeRule("square", 16)
    ).source_index.tolist() == sorted(jpegs)

    for index in (12, 62, 125):
        picture = np.asarray(Image.open(jpegs[index])).astype(int)
        near = range(index - 2, index + 3)
        distances = [np.abs(image - picture).mean() for image in read_frames(source, list(near))]
        assert near[int(np.argmin(distances))] == index
        assert min(distances) < 0.8
