"""A small index of real films, for tests of the server."""

from pathlib import Path

from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.stages.index import Options, Stage
from tests.search.systems import checkpoint
from tests.videos import Film, write

SHORT, LONG = Film(frames=6, fps=3, width=64, height=48), Film(60, 2, 64, 48)
HOSTILE = "<img src=x onerror=alert(1)>"


def films(folder: Path) -> Path:
    """Two films, and one whose name is an attack on a page."""
    write(folder / "a.mp4", SHORT)
    write(folder / "sub" / "long.mp4", LONG)
    write(folder / f"{HOSTILE}.mp4", SHORT)
    return folder


def index(videos: Path, model: Path, out: Path) -> Path:
    """The index of a folder by a small model on CLIP."""
    inputs = dict.fromkeys(Stage.needs) | {
        "videos": Artefact("video_files", videos),
        "checkpoint": Artefact("checkpoint", model, content="c1"),
    }
    run(Stage(Options(), inputs, out), "index", Settings(jobs=1, allow_removals=True))
    return out


def made(folder: Path) -> tuple[Path, Path, Path]:
    """Films, checkpoint and index below a folder."""
    model = checkpoint(folder / "model", "mean")[2]
    videos = films(folder / "films")
    return videos, model, index(videos, model, folder / "idx")
