"""Find the results that hold the encodings of a checkpoint."""

import os
from pathlib import Path

from pipeline.checkpoints.toolkit_file import MODEL, read_format
from pipeline.core.files import file_digest
from pipeline.core.state import read_manifest
from pipeline.errors import DataError, TvrError
from pipeline.evaluation import results
from pipeline.recipes.recipe import parse


def find_results(checkpoint: Path, given: Path | None) -> Path:
    """Return the folder of results that holds this checkpoint's encodings: in `given`, else in a
    step beside the checkpoint's.

    Raises DataError if there is none, or if the encodings are another checkpoint's.
    """
    digest = file_digest(checkpoint)
    candidates = (
        _below(given) if given else [f for step in _siblings(checkpoint) for f in _below(step)]
    )
    for folder in candidates:
        if results.read_gallery(folder).checkpoint == digest:
            return folder
    fix = (
        f"Make them: python cli.py evaluate --in {checkpoint} {_inputs(checkpoint)}"
        " --annotations ... --out RESULTS"
    )
    if given and candidates:
        raise DataError(
            f"these encodings were made by another checkpoint than {checkpoint}",
            where=given,
            fix=fix,
        )
    where, what = (
        (given, "there are no encodings here")
        if given
        else (checkpoint, "no step beside it holds its encodings")
    )
    raise DataError(what, where=where, fix=f"{fix}, then add --videos RESULTS.")


def _inputs(checkpoint: Path) -> str:
    """Return the options of `evaluate` that give this checkpoint's model what it looks at."""
    try:
        reads = parse(read_format(checkpoint, MODEL)["recipe"]).reads
    except (TvrError, KeyError):  # the file itself is at fault: `evaluate` says so
        return "--tensors ..."
    return "--features ..." if "features" in reads else "--videos ..."


def _siblings(checkpoint: Path) -> list[Path]:
    """Finished steps that hold results, in the pipeline folder of a checkpoint
    (PIPELINE/STEP/checkpoints/best.pt).
    """
    near = [step for folder in checkpoint.resolve().parents[:3] for step in _folders(folder)]
    return [step for step in near if _holds_results(step)]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(step for step in folder.iterdir() if step.is_dir())
    except OSError:  # folders of strangers lie there too: what may not be read is not ours
        return []


def _holds_results(step: Path) -> bool:
    try:
        return (read_manifest(step) or {}).get("makes") == "results"
    except (OSError, ValueError, AttributeError):
        return False


def _below(folder: Path) -> list[Path]:
    top = folder if folder.is_dir() else folder.parent
    found = []
    for place, folders, files in os.walk(top):  # passes over what may not be read
        folders.sort()
        if results.GALLERY in files:
            found.append(Path(place))
    return sorted(found)
