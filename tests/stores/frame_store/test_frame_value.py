"""The TVS1 value: what goes in comes out, and anything else is refused."""

import struct
from fractions import Fraction

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stores.frame_store.frame_value import (
    checksum_holds,
    encode_value,
    read_frames,
    read_head,
)
from tests.stores.frame_store.frame_clips import images, value


def fetch(data: bytes):
    return lambda start, length: memoryview(data)[start : start + length]


def decoded(data: bytes, indices: list[int]) -> np.ndarray:
    head = read_head(fetch(data), len(data))
    out = np.empty((len(indices), head.height, head.width, 3), np.uint8)
    read_frames(head, fetch(data), indices, out)
    return out


def test_header_has_the_documented_layout():
    frames = images(1, count=2)
    data = value("clip/é", frames, "raw")

    magic, codec, flags, n, height, width, num, den, _ = struct.unpack_from("<4sHHIHHIII", data)
    (id_length,) = struct.unpack_from("<H", data, 28)

    assert (magic, codec, flags, n, height, width, num, den) == (b"TVS1", 2, 0, 2, 48, 64, 3, 1)
    assert data[30 : 30 + id_length].decode() == "clip/é"
    assert np.frombuffer(data, "<u4", 2, 30 + id_length).tolist() == [0, 333]
    assert np.frombuffer(data, "<u4", 3, 38 + id_length).tolist() == [
        0,
        frames[0].nbytes,
        frames.nbytes,
    ]
    assert data[50 + id_length :] == frames.tobytes()


def test_raw_frames_come_back_exactly():
    frames = images(2)

    assert (decoded(value("a", frames, "raw"), [7, 0, 3]) == frames[[7, 0, 3]]).all()


def test_jpeg_frames_are_what_a_jpeg_decoder_gives():
    frames = images(3)
    expected = [
        simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(f, 90, "RGB", "420"), "RGB") for f in frames
    ]

    got = decoded(value("a", frames, "jpeg"), [2, 2, 5])

    assert (got == np.stack(expected)[[2, 2, 5]]).all()


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (2, 5)])
def test_planes_keep_smooth_pictures(size):
    frames = images(4, 2, 96, 128)[:, : size[0], : size[1]]

    got = decoded(value("a", frames, "yuv"), [0, 1]).astype(int)

    assert np.abs(got - frames).mean() < 4  # half the chroma resolution on waves of 30 pixels
    assert np.abs(got - frames).max() < 40


def test_planes_keep_grey_exactly():
    grey = np.repeat(images(4)[..., :1], 3, axis=3)

    assert (decoded(value("a", grey, "yuv"), list(range(8))) == grey).all()


def test_offsets_beyond_four_gib_are_wide(monkeypatch):
    monkeypatch.setattr("pipeline.stores.frame_store.frame_value._NARROW", 100)
    frames = images(5, 3)

    data = value("a", frames, "raw")

    assert struct.unpack_from("<H", data, 6) == (1,)
    assert (decoded(data, [2]) == frames[2]).all()


def test_any_flipped_bit_breaks_the_checksum():
    data = bytearray(value("a", images(6, 2)))
    data[len(data) // 2] ^= 1

    assert checksum_holds(bytes(value("a", images(6, 2))))
    assert not checksum_holds(bytes(data))


@pytest.mark.parametrize("length", [0, 10, 29, 35, 60, -1])
def test_cut_value_is_refused(length):
    data = value("abc", images(7, 4))[:length]

    with pytest.raises(ValueError, match="value|offsets"):
        read_head(fetch(data), len(data))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_garbage_is_refused_with_a_phrase_or_read(data):
    whole = bytearray(value("abc", images(8, 2, 8, 8)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, min(len(whole) - 1, 70)))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])

    try:
        head = read_head(fetch(damaged), len(damaged))
    except ValueError:
        return
    assert len(head.offsets) == head.n_frames + 1


def test_rate_and_times_survive():
    data = encode_value(
        "a", [b"x"], [4_000_000_000], codec="jpeg", height=1, width=1, fps=Fraction(30000, 1001)
    )

    head = read_head(fetch(data), len(data))

    assert head.fps == Fraction(30000, 1001)
    assert head.times_ms.tolist() == [4_000_000_000]
