"""The step folders that a command line names: a pipeline, a step's folder, or a folder of steps."""

from pathlib import Path

from pipeline import config
from pipeline.core import kept_options
from pipeline.core.plan import Pipeline
from pipeline.core.state import STATE
from pipeline.errors import DataError


def step_folders(
    target: str, path: Path | None, work: Path, overrides: list[str]
) -> dict[str, Path]:
    """Return {name: folder} of the steps of a pipeline, or of the steps at a place on disk.

    A name of a pipeline comes first; `./NAME` is a folder in any case. Raises DataError if there
    are no steps.
    """
    loaded = config.load(path)
    if target in loaded.pipelines:
        opened = Pipeline.open(
            loaded, target, work, kept_options.overrides(work / target, overrides)
        )
        return {step.name: step.out for step in opened.steps.values() if step.out.is_dir()}
    place = Path(target)
    if (place / STATE).is_dir():
        return {place.resolve().name: place}
    inner = sorted(p for p in place.iterdir() if (p / STATE).is_dir()) if place.is_dir() else []
    if not inner:
        raise DataError(
            "this is neither a pipeline nor a folder that a step wrote",
            where=target,
            fix="Give a name of `python cli.py list pipelines`, or the folder of a step.",
        )
    return {p.name: p for p in inner}
