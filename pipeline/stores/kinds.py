"""What a folder or file that no step of ours made holds, by the names in it."""

from pathlib import Path
from typing import Literal

from pipeline.core.artefact import Artefact

Kind = Literal["features", "tensors", "frame_store"]


def kind_of(path: Path) -> Kind | None:
    """Return a BigFile, a tensor cache or a frame store, or None for anything else, a folder of
    videos say.

    Nothing is opened: what is wrong with a store is said by its own reader.
    """
    if path.is_file():
        return "frame_store" if path.suffix in (".lmdb", ".mdb") else None
    if (path / "shape.txt").is_file() and (path / "id.txt").is_file():
        return "features"
    if any((folder / "part-00000.h5").is_file() for folder in (path, *_inner(path))):
        return "tensors"
    names = ("frames.lmdb", "data.mdb")
    return "frame_store" if any((path / name).is_file() for name in names) else None


def is_video_lmdb(videos: Artefact) -> bool:
    """Return whether videos were given as one LMDB file of whole files, as folder2lmdb.py writes
    it.
    """
    if videos.step == "dataset" or videos.manifest is not None:
        return False
    return kind_of(videos.path) == "frame_store"


def _inner(path: Path) -> list[Path]:
    return [path / "frames", path / "features"]
