"""Small real videos, encoded when a test needs them. The frame index is written into the picture as
vertical bars.

Bar b of ten (from the left) is white when bit b of the index is set, as in
../shared/data/bad-videos.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

BARS = 10


@dataclass(frozen=True)
class Film:
    """What to encode. times: of every frame in milliseconds (default: constant rate). options: of
    the encoder.
    """

    frames: int = 50
    fps: Fraction | int = 25
    width: int = 160
    height: int = 120
    codec: str = "libx264"
    pixels: str = "yuv420p"
    rotation: int = 0
    pixel_aspect: Fraction | None = None
    times: Sequence[int] | None = None
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=lambda: {"movflags": "+faststart"})
    noise: int = 0


def write(path: Path, film: Film = Film()) -> Path:  # noqa: B008
    """Encode `film` into `path`; the extension chooses the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=film.muxer) as container:
        stream = add_film(container, film)
        for packet in encoded(stream, film):
            container.mux(packet)
    return path


def add_film(container: av.container.OutputContainer, film: Film) -> av.VideoStream:
    """A video stream for `film` in an open container."""
    stream = container.add_stream(film.codec, rate=film.fps, options=film.options)
    stream.width, stream.height, stream.pix_fmt = film.width, film.height, film.pixels
    stream.codec_context.thread_count = 1
    stream.codec_context.time_base = Fraction(1, 1000) if film.times else 1 / Fraction(film.fps)
    if film.pixel_aspect:
        stream.codec_context.sample_aspect_ratio = film.pixel_aspect
    if film.rotation:
        stream.set_display_rotation(film.rotation)
    return stream


def encoded(stream: av.VideoStream, film: Film) -> Iterator[av.Packet]:
    """The packets of `film`."""
    rng = np.random.default_rng(0)
    for index in range(film.frames):
        picture = bars(index, film.width, film.height)
        if film.noise:
            noise = rng.integers(-film.noise, film.noise + 1, picture.shape)
            picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
        frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=film.pixels)
        frame.time_base = stream.codec_context.time_base
        frame.pts = film.times[index] if film.times else index
        yield from stream.encode(frame)
    yield from stream.encode(None)


def bars(index: int, width: int, height: int) -> np.ndarray:
    """The picture of a frame index, uint8 (H, W, 3)."""
    bits = [(index >> bar) & 1 for bar in range(BARS)]
    row = np.array([bits[x * BARS // width] for x in range(width)], np.uint8) * 215 + 20
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def index_of(image: np.ndarray) -> int:
    """The frame index that a picture (H, W, 3) shows."""
    width = image.shape[1]
    columns = [round((bar + 0.5) * width / BARS) for bar in range(BARS)]
    levels = image[image.shape[0] // 3 : -image.shape[0] // 3].mean(axis=(0, 2))
    return sum(1 << bar for bar, column in enumerate(columns) if levels[column] > 127)


def shown(path: Path) -> list[int]:
    """The frame indices that the frames of a file show."""
    with av.open(str(path)) as container:
        return [index_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def cut(path: Path, share: float) -> Path:
    """Keep the first `share` of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def garble(path: Path, start: float = 0.5, end: float = 0.6) -> Path:
    """Overwrite a part of a file with random bytes."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = np.random.default_rng(1).integers(0, 256, last - first, np.uint8).tobytes()
    path.write_bytes(data)
    return path
