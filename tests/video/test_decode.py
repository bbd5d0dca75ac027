"""Decoding only what is shown gives the pixels of decoding everything; damage is noticed, named and
survived.
"""

import contextlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ItemError
from pipeline.video.decode import Verdict, chosen_frames, examine, survey
from pipeline.video.frame_rule import FrameChoice, Limits
from tests.videos import Film, cut, garble, index_of, write

VP9 = {"deadline": "realtime", "cpu-used": "8"}
STEADY = {"qmin": "8", "qmax": "8"}  # else all bits go into the first frames
CODECS = {
    "h264.mp4": Film(noise=20),
    "h264.avi": Film(noise=20, muxer={}),
    "h264.ts": Film(noise=20, muxer={}),
    "hevc.mp4": Film(
        noise=20, codec="libx265", options={"x265-params": "log-level=none"}, frames=30
    ),
    "mpeg4.avi": Film(noise=20, codec="mpeg4", options={"bf": "2"}, muxer={}),
    "mpeg2.mpg": Film(noise=20, codec="mpeg2video", options={"bf": "2"}, muxer={}),
    "vp9.webm": Film(noise=20, codec="libvpx-vp9", options=VP9, frames=30, muxer={}),
    "vp8.webm": Film(noise=20, codec="libvpx", options=VP9, muxer={}),
    "wmv2.wmv": Film(noise=20, codec="wmv2", muxer={}),
    "flv1.flv": Film(noise=20, codec="flv", muxer={}),
    "mjpeg.mov": Film(noise=20, codec="mjpeg", pixels="yuvj420p", frames=30),
    "film.gif": Film(noise=20, codec="gif", pixels="rgb8", frames=20, fps=10, muxer={}),
}
DAMAGED = {
    "h264.mp4": Film(),
    "h264.mkv": Film(muxer={}),
    "h264.avi": Film(muxer={}),
    "h264.ts": Film(muxer={}),
    "h264.flv": Film(muxer={}),
    "mpeg4.mp4": Film(codec="mpeg4", options=STEADY),
    "mpeg4.avi": Film(codec="mpeg4", options=STEADY, muxer={}),
    "mpeg2.mpg": Film(codec="mpeg2video", options=STEADY, muxer={}),
    "vp8.webm": Film(codec="libvpx", options=VP9, muxer={}),
}


def read(path: Path | bytes, choice: FrameChoice = FrameChoice(), skip: bool = True, **limits):  # noqa: B008
    """(index, repeats, RGB) of every chosen frame, and the verdict."""
    verdict = Verdict()
    frames = [
        (chosen.index, chosen.repeats, chosen.frame.to_ndarray(format="rgb24"))
        for chosen in chosen_frames(path, choice, Limits(**limits), verdict, skip)
    ]
    return frames, verdict


@pytest.mark.parametrize("name", CODECS)
def test_skipping_is_pixel_equal_to_decoding_everything(name: str, tmp_path: Path):
    path = write(tmp_path / name, CODECS[name])

    quick, quick_verdict = read(path)
    full, full_verdict = read(path, skip=False)

    assert [frame[:2] for frame in quick] == [frame[:2] for frame in full]
    assert all(np.array_equal(a[2], b[2]) for a, b in zip(quick, full, strict=True))
    assert quick_verdict == full_verdict
    assert (quick_verdict.status, quick_verdict.decoded) == ("ok", CODECS[name].frames)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.avi", "mpeg4.avi", "mpeg2.mpg", "vp9.webm"])
def test_the_frames_are_the_ones_they_claim_to_be(name: str, tmp_path: Path):
    path = write(tmp_path / name, Film(**{**vars(CODECS[name]), "noise": 0}))

    frames, _ = read(path)

    assert [index for index, _, _ in frames] == [index_of(image) for _, _, image in frames]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_cut_file_is_truncated_and_gives_what_is_left(name: str, tmp_path: Path):
    path = cut(write(tmp_path / name, Film(**{**vars(DAMAGED[name]), "noise": 30})), 0.55)

    frames, verdict = read(path)

    assert (verdict.status, verdict.reason) == ("damaged", "truncated")
    assert 15 < verdict.decoded < 40
    assert [frame[0] for frame in frames][:3] == [0, 8, 16]


@pytest.mark.parametrize("name", DAMAGED)
def test_garbage_in_the_middle_is_noticed(name: str, tmp_path: Path):
    path = garble(
        write(tmp_path / name, Film(**{**vars(DAMAGED[name]), "noise": 30, "frames": 80}))
    )

    frames, verdict = read(path)

    assert (verdict.status, verdict.reason) == ("damaged", "decode_errors")
    assert frames[0][0] == 0
    assert verdict.message


def test_after_trouble_both_ways_agree(tmp_path: Path):
    path = garble(write(tmp_path / "film.mp4", Film(noise=30, frames=80)))

    quick, quick_verdict = read(path)
    full, full_verdict = read(path, skip=False)

    assert sum(f[1] for f in quick) == sum(f[1] for f in full)
    assert sorted({f[0] for f in quick}) == sorted({f[0] for f in full})
    assert quick_verdict == full_verdict


def test_a_header_without_pictures_has_no_frames(tmp_path: Path):
    path = write(tmp_path / "film.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])

    with pytest.raises(ItemError, match="no_frames"):
        read(path)


def test_a_time_that_goes_back_is_repaired_and_reported(tmp_path: Path):
    path = write(tmp_path / "film.mkv", Film(frames=20, codec="mjpeg", pixels="yuvj420p", muxer={}))
    block = (
        b"\x81\x01\x90\x80",
        b"\x81\x00\xc8\x80",
    )  # track 1 at 400 ms, a key frame; the same at 200 ms
    path.write_bytes(path.read_bytes().replace(*block))

    frames, verdict = read(path, FrameChoice("all"))

    assert [index_of(image) for _, _, image in frames] == list(range(20))
    assert (verdict.status, verdict.reason, verdict.decoded) == ("damaged", "bad_timestamps", 20)


def test_a_long_gap_is_too_long_before_anything_is_decoded(tmp_path: Path):
    path = write(tmp_path / "gap.mp4", Film(frames=2, times=[0, 60_000]))

    with pytest.raises(ItemError, match="too_long"):
        read(path, max_duration=59.0)
    with pytest.raises(ItemError, match="too_long"):
        read(path, max_repeat_frames=100)
    assert read(path)[1].status == "ok"


def test_a_raw_stream_without_times_counts_frames(tmp_path: Path):
    path = tmp_path / "raw.mp4"
    write(tmp_path / "raw.h264", Film(frames=50, muxer={})).rename(path)

    frames, verdict = read(path)

    assert [frame[0] for frame in frames] == [0, 8, 16, 25, 33, 41]
    assert verdict.status == "ok"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_broken_bytes_give_item_errors_and_nothing_else(suffix: str, tmp_path: Path):
    whole = write(tmp_path / f"film{suffix}", Film(frames=10, muxer={})).read_bytes()
    rng = np.random.default_rng(0)

    for _ in range(40):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), 8):
            data[position] = rng.integers(256)
        first, last = sorted(rng.integers(0, len(data), 2))
        with contextlib.suppress(ItemError):
            read(bytes(data[:first] + data[first + (last - first) // 4 :]), max_pixels=1 << 20)


def test_a_survey_promises_what_an_examination_finds(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=40))

    promised, found = (look(path, FrameChoice(), Limits()) for look in (survey, examine))

    assert promised == found
    assert (promised.slots, promised.decoded, promised.is_suspect) == (5, 40, False)


def test_a_survey_suspects_a_cut_file_that_an_examination_judges(tmp_path: Path):
    path = cut(write(tmp_path / "film.mp4"), 0.6)

    assert survey(path, FrameChoice(), Limits()).is_suspect
    assert examine(path, FrameChoice(), Limits()).reason == "truncated"


def test_ffmpeg_takes_the_same_frames_at_constant_rates(tmp_path: Path):
    """The published command itself, where the program is there."""
    ffmpeg = pytest.importorskip("pipeline.video.ffmpeg")
    from pipeline.video.encode import Encoding
    from tests.videos import shown

    for rate, rule in (
        (10, "published"),
        (24, "grid"),
        (25, "published"),
        (Fraction(30000, 1001), "published"),
        (30, "grid"),
    ):
        path = write(tmp_path / "film.mp4", Film(frames=60, fps=rate))
        choice = FrameChoice.at(3, rule)
        ffmpeg.run(ffmpeg.Job(path, 0, 160, 120, choice, Encoding()), tmp_path / "out.mp4", 60)
        assert shown(tmp_path / "out.mp4") == [
            i for i, repeats, _ in read(path, choice)[0] for _ in range(repeats)
        ]
