"""Clips per CPU-second: the published compress command against our engine and against direct
frames.

Both sides run in turn on the same clips in this process; CPU seconds are user + system, children
included.
Run: python -m benchmarks.data.compress [--clips N] [--real FOLDER]
"""

import argparse
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import simplejpeg
from PIL import Image

from pipeline.core.artefact import Artefact
from pipeline.core.stage import Item
from pipeline.datasets.parts.sources import Source
from pipeline.stages.compress import Stage
from pipeline.video import ffmpeg
from pipeline.video.frame_rule import FrameChoice, SizeRule
from pipeline.video.reader import decode_clip

SIZES = {"320x240": (320, 240), "1280x720": (1280, 720)}
SECONDS = 12
REPEATS = 2
DEMANDS = {"320x240": (2.5, 3.5), "1280x720": (2.0, 2.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2, help="clips per size")
    parser.add_argument("--real", type=Path, help="folder of clips of your own, up to 1 MB each")
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, ffmpeg: {ffmpeg.executable()}, PyAV"
        f" {av.__version__}"
    )
    print(f"{'':12}{'clips':>6}{'published':>12}{'pyav':>9}{'direct':>9}   clips per CPU-second")
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height) in SIZES.items():
            clips = [
                draw(Path(folder, f"{name}-{n}.mp4"), width, height, n)
                for n in range(options.clips)
            ]
            megabits = sum(clip.stat().st_size for clip in clips) * 8 / 1e6 / SECONDS / len(clips)
            print(f"{name}: {SECONDS} s at {megabits:.2f} Mbit/s each")
            report(name, clips, Path(folder), *DEMANDS[name])
        real = sorted(options.real.glob("*.*4")) if options.real else []
        if real:
            small = [path for path in real if path.stat().st_size < 1 << 20]
            report("real files", small, Path(folder), 0, 0)


def report(
    name: str, clips: list[Path], folder: Path, compress_demand: float, direct_demand: float
) -> None:
    sides = {"published": published, "pyav": with_pyav, "direct": direct}
    spent = dict.fromkeys(sides, 0.0)
    for _ in range(REPEATS):
        for clip in clips:
            for side, work in sides.items():
                spent[side] += cpu_seconds(work, clip, folder)
    rate = {side: REPEATS * len(clips) / seconds for side, seconds in spent.items()}
    print(
        f"{name:12}{len(clips):6}{rate['published']:12.2f}{rate['pyav']:9.2f}{rate['direct']:9.2f}",
        end="   ",
    )
    print(f"pyav {rate['pyav'] / rate['published']:.2f} x (must reach {compress_demand})", end=", ")
    print(f"direct {rate['direct'] / rate['published']:.2f} x (must reach {direct_demand})")


def cpu_seconds(work: Callable[[Path, Path], None], clip: Path, folder: Path) -> float:
    before = _spent()
    work(clip, folder)
    return _spent() - before


def _spent() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def published(clip: Path, folder: Path) -> None:
    """The command of CLIP4Clip's preprocess/compress_video.py: ffmpeg's defaults for all but the
    size and the rate.
    """
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        width, height = SizeRule("clip4clip").target(stream.width, stream.height, 4096)
    command = [
        ffmpeg.executable(),
        "-y",
        "-loglevel",
        "error",
        "-i",
        str(clip),
        "-filter:v",
        f"scale={width}:{height}",
    ]
    subprocess.run([*command, "-map", "0:v", "-r", "3", str(folder / "published.mp4")], check=True)


def with_pyav(clip: Path, folder: Path) -> None:
    options = Stage.Options(frame_rule="published")
    stage = Stage(options, {"videos": Artefact("video_files", clip.parent)}, folder / "out")
    stage.process(Item(clip.stem, "", Source(clip.stem, clip, "")))


def direct(clip: Path, folder: Path) -> None:
    for image in decode_clip(clip, FrameChoice.at(3, "published"), SizeRule()).images:
        simplejpeg.encode_jpeg(image, quality=90, colorspace="RGB", colorsubsampling="420")


def draw(path: Path, width: int, height: int, seed: int) -> Path:
    """A clip of three scenes: a camera moves over a detailed picture, an object crosses it, with
    some grain.
    """
    rng, fps = np.random.default_rng(seed), 25 + 5 * (seed % 2)
    scenes = [texture(rng, height * 3 // 2, width * 3 // 2) for _ in range(3)]
    thing = texture(rng, height // 3, width // 4)
    grain = [rng.normal(0, 3, (height, width, 1)).astype(np.int16) for _ in range(4)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264",
            rate=fps,
            options={"preset": "medium", "crf": "18.5" if height < 480 else "20"},
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(SECONDS * fps):
            t, scene = n / fps, scenes[3 * n // (SECONDS * fps)]
            y, x = (
                int(height / 4 * (1 + np.sin(t / 2 + seed))),
                int(width / 4 * (1 + np.cos(t / 3 + seed))),
            )
            picture = scene[y : y + height, x : x + width].astype(np.int16)
            y, x = int(height / 3 * (1 + np.cos(t))), int(width * 3 / 8 * (1 + np.sin(1.3 * t)))
            picture[y : y + height // 3, x : x + width // 4] = thing
            noisy = np.clip(picture + grain[n % 4], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Random detail of all sizes, uint8 (H, W, 3)."""
    total = np.zeros((height, width, 3), np.float32)
    for scale in (2, 4, 8, 16, 32, 64):
        layer = rng.normal(0, scale, (height // scale + 3, width // scale + 3, 3)).astype(
            np.float32
        )
        for channel in range(3):
            image = Image.fromarray(layer[..., channel]).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            total[..., channel] += np.asarray(image)
    total -= total.min()
    return (total * (255 / total.max())).astype(np.uint8)


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.0f} s")
