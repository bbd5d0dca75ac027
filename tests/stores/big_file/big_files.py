"""Small BigFile folders, as the published tools write them and as ours does."""

from pathlib import Path

import numpy as np

from pipeline.stores.big_file.writer import BigFileWriter


def values(rows: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def publish(folder: Path, ids: list[str], matrix: np.ndarray, videos: str | None = None) -> Path:
    """A folder as the published tools write it; `videos`: the text of video2frames.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature.bin").write_bytes(matrix.astype("<f4").tobytes())
    (folder / "shape.txt").write_text(f"{matrix.shape[0]} {matrix.shape[1]}")
    (folder / "id.txt").write_bytes(" ".join(ids).encode("iso-8859-1"))
    if videos is not None:
        (folder / "video2frames.txt").write_text(videos)
    return folder


def frames(folder: Path, counts: dict[str, int], dim: int = 3, seed: int = 0) -> Path:
    """A store of ours with so many frames per video."""
    with BigFileWriter(folder, dim) as writer:
        for n, (video_id, count) in enumerate(counts.items()):
            writer.append(
                video_id, [f"{video_id}_{i}" for i in range(count)], values(count, dim, seed + n)
            )
        writer.finish(writer.videos)
    return folder
