"""Small frames, videos and records for the tests of the frame store and the tensor cache."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.core.stage import Item
from pipeline.core.state import Record
from pipeline.stores.frame_store.frame_value import Codec, encode_frame, encode_value

STEP = "step-1"


def images(seed: int, count: int = 8, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 (count, height, width, 3): smooth coloured waves that differ from frame to frame."""
    phase = np.random.default_rng(seed).uniform(0, 6, (count, 1, 1, 3))
    y, x = np.mgrid[0:height, 0:width]
    waves = np.sin(phase + x[..., None] * 0.04 + y[..., None] * 0.02 * (1 + np.arange(3)))
    return (127 + 120 * waves).astype(np.uint8)


def value(video_id: str, frames: np.ndarray, codec: Codec = "jpeg", quality: int = 90) -> bytes:
    pieces = [encode_frame(frame, codec, quality) for frame in frames]
    times = [333 * n for n in range(len(frames))]
    height, width = frames.shape[1:3]
    return encode_value(
        video_id, pieces, times, codec=codec, height=height, width=width, fps=Fraction(3)
    )


def record(video_id: str, frames: int = 8, n_bytes: int = 0, **facts: object) -> Record:
    return Record(
        video_id,
        f"key of {video_id}",
        STEP,
        "ok",
        facts={"frames": frames, "bytes": n_bytes} | facts,
    )


def items(ids: list[str]) -> list[Item]:
    return [Item(i, f"key of {i}") for i in ids]


def write_video(path: Path, frames: np.ndarray, fps: Fraction | int = 3) -> Path:
    """An H.264 file with one picture per frame."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"crf": "18", "preset": "ultrafast"}
        )
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def build_store(
    folder: Path, videos: dict[str, np.ndarray], codec: Codec = "jpeg", placement: str = "inline"
) -> Path:
    """A finished store of `videos` {id: frames}, in that order."""
    from pipeline.stores.frame_store.writer import FrameStoreWriter

    writer = FrameStoreWriter(folder, placement=placement, details={"codec": codec})
    writer.open([])
    records = []
    for video_id, frames in videos.items():
        data = value(video_id, frames, codec)
        records.append(record(video_id, len(frames), len(data)))
        writer.put(data, records[-1])
    writer.flush()
    writer.finish(records)
    return folder / "frames.lmdb"
