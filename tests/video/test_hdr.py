"""HDR film looks like the same film in SDR; every change to the picture is noted."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from pipeline.video.compress import Options, compress
from pipeline.video.hdr import to_sdr
from pipeline.video.reader import FrameChoice, decode_clip

PQ, HLG = 16, 18
COLOURS = [(220, 30, 30), (30, 200, 30), (40, 60, 230), (240, 240, 240), (90, 90, 90), (0, 0, 0)]
TO_2020 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
)


def bars() -> np.ndarray:
    return np.repeat(np.array(COLOURS, np.uint8)[None], 64, 0).repeat(16, 1)


def in_hdr(picture: np.ndarray, transfer: int) -> np.ndarray:
    """uint16 R'G'B' of a SDR picture whose white has 203 cd/m2, as BT.2408 has it."""
    light = 203 * (picture / 255.0) ** 2.4 @ TO_2020.T
    if transfer == PQ:
        m1, m2, c1 = 2610 / 16384, 2523 / 32, 3424 / 4096
        power = (light / 10_000) ** m1
        signal = ((c1 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** m2
    else:
        shown = light / 1000
        luminance = shown @ np.array([0.2627, 0.6780, 0.0593])
        scene = shown * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
        a = 0.17883277
        high = a * np.log(np.maximum(12 * scene - (1 - 4 * a), 1e-9)) + 0.5 - a * np.log(4 * a)
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    return np.rint(65535 * np.clip(signal, 0, 1)).astype(np.uint16)


def film(path: Path, transfer: int, pictures: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace = transfer, 9, 9
        for n, picture in enumerate(pictures):
            frame = VideoFrame.from_ndarray(picture, "rgb48le")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=9)
            frame.pts, frame.time_base = n, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_picture_in_hdr_comes_back_as_it_was(transfer: int) -> None:
    found = to_sdr(in_hdr(bars(), transfer), transfer, primaries=9)

    difference = np.abs(found.astype(int) - bars())[:, : 5 * 16]
    assert difference.max() <= 22  # white is rolled off a little
    assert difference.mean() < 4


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_frames_of_hdr_film_are_those_of_the_film(tmp_path: Path, transfer: int) -> None:
    path = film(tmp_path / "film.mkv", transfer, [in_hdr(bars(), transfer)] * 3)

    clip = decode_clip(path, FrameChoice("all"))

    inner = clip.images[0][8:-8].reshape(48, 6, 16, 3)[:, :, 4:-4].mean((0, 2))
    assert np.abs(inner - np.array(COLOURS)).max() < 25
    assert clip.status == "ok"
    assert clip.message.startswith(f"HDR ({'PQ' if transfer == PQ else 'HLG'}), tone-mapped")


def test_brightness_beyond_white_rises_without_end_or_step() -> None:
    grey = np.arange(0, 65536, 64, dtype=np.uint16)[None, :, None].repeat(3, 2)

    found = to_sdr(grey, PQ, 9)[0, :, 0].astype(int)

    assert (np.diff(found) >= 0).all()
    assert found[0] == 0
    assert found[-1] <= 255


def test_a_compressed_hdr_film_is_plain_and_says_so(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", PQ, [in_hdr(bars(), PQ)] * 5)

    outcome = compress(path, tmp_path, "small.mp4", Options(short_side=64))

    with av.open(str(tmp_path / "small.mp4")) as small:
        frame = next(small.decode(video=0))
    assert (frame.color_trc, frame.color_primaries, frame.colorspace) == (1, 1, 1)
    assert np.abs(frame.to_ndarray(format="rgb24")[32, 8].astype(int) - COLOURS[0]).max() < 30
    assert outcome.status == "ok"
    assert "HDR (PQ)" in outcome.message
