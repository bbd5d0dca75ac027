"""Orientation, size and colour of decoded pictures."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video.frame_rule import FrameChoice, SizeRule
from pipeline.video.picture import Orientation
from pipeline.video.reader import decode_clip, iterate_clip
from tests.videos import Film, bars, write


def first_picture(path: Path, size: SizeRule | None = None) -> np.ndarray:
    return decode_clip(path, FrameChoice(), size).images[0]


def corner_film(path: Path, rotation: int, hflip: bool = False, vflip: bool = False) -> np.ndarray:
    """Write a film whose corners differ; returns its coded picture."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:20, :30] = 255, 0, 0
    picture[:20, -30:] = 0, 255, 0
    picture[-20:, :30] = 0, 0, 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        stream.set_display_rotation(rotation, hflip=hflip, vflip=vflip)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return picture


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_pictures_are_turned_as_the_display_matrix_says(rotation: int, tmp_path: Path):
    picture = corner_film(tmp_path / "film.mp4", rotation)

    image = first_picture(tmp_path / "film.mp4")

    with av.open(str(tmp_path / "film.mp4")) as container:
        degrees = next(container.decode(video=0)).rotation
    expected = np.rot90(picture, k=degrees // 90)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(("hflip", "vflip"), [(True, False), (False, True)])
def test_mirrored_pictures_are_mirrored(hflip: bool, vflip: bool, tmp_path: Path):
    picture = corner_film(tmp_path / "film.mp4", 0, hflip, vflip)

    image = first_picture(tmp_path / "film.mp4")

    expected = picture[:, ::-1] if hflip else picture[::-1]
    assert np.abs(image.astype(int) - expected).mean() < 4


def test_a_turned_plane_is_the_turned_picture():
    plane = np.arange(6).reshape(2, 3)

    assert Orientation(True, False, True).apply(plane).tolist() == np.rot90(plane).tolist()
    assert Orientation().apply(plane) is plane


@pytest.mark.parametrize("rotation", [90, 180])
def test_yuv_and_rgb_are_turned_alike(rotation: int, tmp_path: Path):
    corner_film(tmp_path / "film.mp4", rotation)
    reader = iterate_clip(tmp_path / "film.mp4", FrameChoice(), SizeRule("short", 64))

    chosen = next(reader.chosen())
    shaper = reader.shaper(chosen.frame)
    rgb, yuv = shaper.rgb(chosen.frame), shaper.yuv(chosen.frame).to_ndarray(format="rgb24")

    assert rgb.shape == yuv.shape == (shaper.height, shaper.width, 3)
    assert np.abs(rgb.astype(int) - yuv).mean() < 6


def test_the_size_is_decided_on_the_turned_picture(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=2, rotation=90))

    assert first_picture(path, SizeRule()).shape == (298, 224, 3)


def test_pixel_aspect_counts_only_when_asked_for(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=2, pixel_aspect=Fraction(16, 9)))

    assert first_picture(path, SizeRule()).shape == (224, 298, 3)
    assert first_picture(path, SizeRule(square_pixels=True)).shape == (224, 530, 3)
    assert first_picture(path).shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("pixels", "codec"),
    [("yuv420p", "libx264"), ("yuvj420p", "libx264"), ("yuv420p10le", "libx264")],
)
def test_full_range_and_ten_bits_give_the_same_colours(pixels: str, codec: str, tmp_path: Path):
    path = write(
        tmp_path / "film.mp4", Film(frames=6, codec=codec, pixels=pixels, options={"crf": "5"})
    )

    image = decode_clip(path, FrameChoice("all")).images[5]

    assert np.abs(image.astype(int) - bars(5, 160, 120)).mean() < 3


def test_full_range_becomes_limited_range_in_yuv(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=1, pixels="yuvj420p", options={"crf": "5"}))
    reader = iterate_clip(path, FrameChoice(), SizeRule())

    chosen = next(reader.chosen())
    frame = reader.shaper(chosen.frame).yuv(chosen.frame)

    assert frame.format.name == "yuv420p"
    darkest = np.frombuffer(frame.planes[0], np.uint8).reshape(224, -1)[:, :298].min()
    assert 30 <= darkest <= 36  # 20 of 255 is 33 of 16..235


def test_images_belong_to_the_caller(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=20))

    images = [frame.image for frame in iterate_clip(path, FrameChoice("all"))]

    assert len({image.tobytes() for image in images}) == 20
