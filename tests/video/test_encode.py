"""Small H.264 files: what is in them, that their bytes are fixed, and that a wrong one is found
out.
"""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.video.frame import VideoFrame

from pipeline.errors import ItemError
from pipeline.video.encode import Encoding, Mp4Writer, count_frames, verify
from tests.videos import bars, cut, index_of, shown


def encode(
    path: Path, frames: int = 12, encoding: Encoding = Encoding(), fps: Fraction = Fraction(3)
) -> Path:  # noqa: B008
    with Mp4Writer(path, encoding, fps) as writer:
        for index in range(frames):
            picture = VideoFrame.from_ndarray(bars(index, 160, 120), format="rgb24")
            writer.write(picture.reformat(format="yuv420p"))
    return path


def test_the_file_holds_the_frames_at_the_rate(tmp_path: Path):
    path = encode(tmp_path / "out.mp4")

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 3, 12)
        assert stream.codec_context.pix_fmt == "yuv420p"
    assert shown(path) == list(range(12))


def test_the_index_comes_first_and_nothing_names_a_time_or_a_tool(tmp_path: Path):
    data = encode(tmp_path / "out.mp4").read_bytes()

    assert data.index(b"moov") < data.index(b"mdat")
    assert b"Lavf" not in data
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not {"encoder", "creation_time", "title"} & container.metadata.keys()


def test_the_bytes_are_fixed(tmp_path: Path):
    assert encode(tmp_path / "a.mp4").read_bytes() == encode(tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(("gop", "keys"), [(1, 12), (5, 3), (250, 1)])
def test_key_frames_come_every_gop(gop: int, keys: int, tmp_path: Path):
    path = encode(tmp_path / "out.mp4", encoding=Encoding(gop=gop))

    with av.open(str(path)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) == keys


def test_repeats_fill_slots(tmp_path: Path):
    with Mp4Writer(tmp_path / "out.mp4", Encoding(), Fraction(5, 2)) as writer:
        for index, repeats in ((0, 1), (1, 3), (2, 2)):
            picture = VideoFrame.from_ndarray(bars(index, 160, 120), format="rgb24")
            writer.write(picture.reformat(format="yuv420p"), repeats)

    assert writer.frames == 6
    assert shown(tmp_path / "out.mp4") == [0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("expected", [(160, 120, 11), (160, 118, 12), (158, 120, 12)])
def test_another_size_or_length_is_found_out(expected: tuple[int, int, int], tmp_path: Path):
    path = encode(tmp_path / "out.mp4")

    verify(path, 160, 120, 12)
    with pytest.raises(ItemError, match="instead of"):
        verify(path, *expected)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_half_a_file_is_found_out(share: float, tmp_path: Path):
    path = cut(encode(tmp_path / "out.mp4"), share)

    with pytest.raises(ItemError, match="read back"):
        verify(path, 160, 120, 12)


def test_a_full_check_finds_pictures_that_do_not_decode(tmp_path: Path):
    path = encode(tmp_path / "out.mp4", frames=40)
    data = bytearray(path.read_bytes())
    data[-200:] = bytes(200)
    path.write_bytes(data)

    verify(path, 160, 120, 40)
    with pytest.raises(ItemError):
        verify(path, 160, 120, 40, every_frame=True)
    assert count_frames(path) == 40


def test_colour_tags_are_copied(tmp_path: Path):
    picture = VideoFrame.from_ndarray(bars(3, 160, 120), format="rgb24").reformat(format="yuv420p")
    picture.colorspace = picture.color_primaries = picture.color_trc = 1  # BT.709

    with Mp4Writer(tmp_path / "out.mp4", Encoding(), Fraction(3)) as writer:
        writer.write(picture)

    with av.open(str(tmp_path / "out.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc) == (1, 1, 1)


def test_pictures_keep_their_order(tmp_path: Path):
    with av.open(str(encode(tmp_path / "out.mp4", frames=20))) as container:
        indices = [
            index_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]

    assert indices == list(range(20))
