"""Samples per CPU-second: 12 random frames of a random video, from the published database and from
our stores.

    python benchmarks/data/frame_store.py [--videos 16] [--seconds 3]

Videos of about 40 frames, 298x224, 3 fps, H.264 as ffmpeg makes it by default, drawn on the fly;
everything warm in the page cache, one process. Published side: mp4 bytes in LMDB, PyAV decodes the
whole clip, 12 frames cropped, float32 out (docs/specs/preprocessing.md, sections 1.4, 1.9; written
from the description). Ours ends with uint8 in a preallocated batch, because normalising belongs on
the device; the line "+ float32" adds it on the CPU all the same.
"""

import argparse
import io
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import lmdb
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.core.artefact import Artefact  # noqa: E402
from pipeline.core.runner import Settings, run  # noqa: E402
from pipeline.stages.frames import Stage as Frames  # noqa: E402
from pipeline.stages.tensors import Stage as Tensors  # noqa: E402
from pipeline.stores.frame_store.reader import FrameStore  # noqa: E402
from pipeline.stores.tensor_cache.reader import TensorCache  # noqa: E402

HEIGHT, WIDTH, SIZE, SAMPLES = 224, 298, 224, 12
LEFT = (WIDTH - SIZE) // 2
MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


def draw(rng: np.random.Generator, count: int) -> np.ndarray:
    """uint8 (count, H, W, 3): three textured layers that wander and fade into each other, and a
    moving box.

    Tuned to the sizes of real clips (docs/specs/preprocessing.md, section 5.1): about 5 kB per
    frame as mp4, 11 kB as JPEG q90.
    """
    layers = [_layer(rng) for _ in range(3)]
    places = rng.integers(-2, 3, (3, count, 2)).cumsum(axis=1) % 128
    phase = rng.uniform(0, 6, 3)
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for n in range(count):
        weights = 1 + np.sin(phase + 0.3 * n)
        seen = [
            layer[top : top + HEIGHT, left : left + WIDTH]
            for layer, (top, left) in zip(layers, places[:, n], strict=True)
        ]
        mixed = sum(w * layer for w, layer in zip(weights / weights.sum(), seen, strict=True))
        frames[n] = np.clip(mixed, 0, 255)
        frames[n, 60:120, 5 * n % 230 : 5 * n % 230 + 60] = (200, 40 + n, 30)
    return frames


def _layer(rng: np.random.Generator) -> np.ndarray:
    """float32 (H+128, W+128, 3): waves and blurred noise."""
    noise = rng.normal(size=(HEIGHT + 128, WIDTH + 128, 3)).astype(np.float32)
    for _ in range(8):
        noise = sum(np.roll(noise, shift, axis) for axis in (0, 1) for shift in (-1, 0, 1)) / 6
    y, x = np.mgrid[0 : HEIGHT + 128, 0 : WIDTH + 128]
    waves = np.sin(x[..., None] / rng.uniform(15, 60, 3)) + np.cos(
        y[..., None] / rng.uniform(15, 60, 3)
    )
    return (128 + 45 * waves + 9 * noise / noise.std()).astype(np.float32)


def write_video(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=3
        )  # CRF 23, preset medium, key frame every 250
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


class Published:
    """The stand-in: one read, decode everything, choose, crop, normalise."""

    def __init__(self, path: Path):
        self._environment = lmdb.open(
            str(path),
            subdir=False,
            readonly=True,
            lock=False,
            readahead=False,
            meminit=False,
            map_size=1 << 41,
        )

    def __call__(self, video_id: str, indices: np.ndarray) -> np.ndarray:
        with self._environment.begin() as txn:
            data = txn.get(f"{video_id}.mp4".encode())
        with av.open(io.BytesIO(data)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chosen = np.stack(frames)[indices]
        return normalised(chosen[:, :, LEFT : LEFT + SIZE])


def normalised(frames: np.ndarray) -> np.ndarray:
    """float32 (T, 3, S, S) as the models take it."""
    return ((frames.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)


def cropped(store: FrameStore, batch: np.ndarray) -> Callable[[str, np.ndarray], None]:
    """Read into a buffer of the stored size, put the centre into the batch."""
    buffer = np.empty((SAMPLES, HEIGHT, WIDTH, 3), np.uint8)

    def read(video_id: str, indices: np.ndarray) -> None:
        store.read(video_id, indices, out=buffer)
        batch[0] = buffer[:, :, LEFT : LEFT + SIZE]

    return read


def samples_per_cpu_second(read: Callable, counts: dict[str, int], seconds: float) -> float:
    rng = np.random.default_rng(0)
    ids = list(counts)
    for video_id in ids:  # warm: pages and first-time checksums
        read(video_id, np.arange(SAMPLES))
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        video_id = ids[rng.integers(len(ids))]
        read(video_id, np.sort(rng.choice(counts[video_id], SAMPLES, replace=False)))
        done += 1
    return done / (time.process_time() - start)


def build(root: Path, n_videos: int) -> tuple[dict[str, int], dict[str, Path]]:
    """Frames per video, and the folders of the stores."""
    rng = np.random.default_rng(1)
    (root / "in").mkdir()
    counts = {f"video{n}": int(rng.integers(36, 46)) for n in range(n_videos)}
    for video_id, count in counts.items():
        write_video(root / "in" / f"{video_id}.mp4", draw(rng, count))
    source, folders = Artefact("video_files", root / "in"), {}
    Frames.runs = "inline"
    variants = {
        "mp4": {"layout": "mp4"},
        "jpeg": {},
        "jpeg crop": {"crop": "center"},
        "jpeg pack": {"placement": "pack"},
        "yuv": {"layout": "yuv"},
        "raw": {"layout": "raw"},
        "raw pack": {"layout": "raw", "placement": "pack"},
    }
    for name, options in variants.items():
        folders[name] = root / name.replace(" ", "-")
        run(
            Frames(Frames.Options(**options), {"videos": source}, folders[name]),
            name,
            Settings(jobs=1),
        )
    folders["cache"] = root / "cache"
    inputs = {"store": Artefact("frame_store", folders["raw"]), "bigfile": None, "videos": None}
    run(Tensors(Tensors.Options(frames={}), inputs, folders["cache"]), "cache", Settings(jobs=1))
    return counts, folders


def readers(folders: dict[str, Path]) -> dict[str, tuple[str, Callable]]:
    """Line of the table -> folder name, and what reads a sample."""
    batch = np.empty((1, SAMPLES, SIZE, SIZE, 3), np.uint8)
    stores = {name: FrameStore.open(folder) for name, folder in folders.items() if name != "cache"}
    cache = TensorCache.open(folders["cache"])
    copy = shutil.copy(
        stores["mp4"].path, folders["mp4"].parent / "published.lmdb"
    )  # a file is opened once per process
    jpeg = cropped(stores["jpeg"], batch)

    def with_floats(video_id: str, indices: np.ndarray) -> np.ndarray:
        jpeg(video_id, indices)
        return normalised(batch[0])

    return {
        "published: mp4 in LMDB, PyAV, float32": ("mp4", Published(copy)),
        "mp4 layout, our reader, uint8": ("mp4", cropped(stores["mp4"], batch)),
        "JPEG q90": ("jpeg", jpeg),
        "JPEG q90 + float32": ("jpeg", with_floats),
        "JPEG q90, pack": ("jpeg pack", cropped(stores["jpeg pack"], batch)),
        "JPEG q90, cropped": (
            "jpeg crop",
            lambda v, i: stores["jpeg crop"].read(v, i, out=batch[0]),
        ),
        "planar 4:2:0": ("yuv", cropped(stores["yuv"], batch)),
        "raw": ("raw", cropped(stores["raw"], batch)),
        "raw, pack": ("raw pack", cropped(stores["raw pack"], batch)),
        "tensor cache": ("cache", lambda v, i: cache.gather([v], i[None], out=batch)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU-seconds per line")
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; python"
        f" {' '.join(sys.argv)}"
    )
    print(f"{'':<40}{'samples/CPU-s':>14}{'ms':>9}{'times':>8}{'kB/video':>10}")
    with tempfile.TemporaryDirectory() as root:
        counts, folders = build(Path(root), arguments.videos)
        first = 0.0
        for line, (name, read) in readers(folders).items():
            rate = samples_per_cpu_second(read, counts, arguments.seconds)
            first = first or rate
            size = sum(
                f.stat().st_size
                for f in folders[name].rglob("*")
                if f.is_file() and "_state" not in f.parts
            )
            print(
                f"{line:<40}{rate:>14,.1f}{1000 / rate:>9.2f}{rate / first:>8.1f}{size / len(counts) / 1000:>10,.0f}"
            )


if __name__ == "__main__":
    main()
