"""Bring the steps of a pipeline up to date, in order; merge the parts of a sharded step."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import log
from pipeline.core import ranks, runner, stop
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.plan import Pipeline, Step
from pipeline.core.state import read_manifest
from pipeline.core.status import UP_TO_DATE, assess_all
from pipeline.core.todo import Settings
from pipeline.errors import ConfigError, DataError, Interrupted


@dataclass(frozen=True)
class Selection:
    """Which steps to run. until: up to and including it; only: just it; force: redo it although it
    is up to date.
    """

    until: str = ""
    only: str = ""
    force: tuple[str, ...] = ()


def selected(pipeline: Pipeline, selection: Selection) -> list[Step]:
    """The steps a selection names, in order. ConfigError for unknown names."""
    for name in (selection.until, selection.only, *selection.force):
        if name:
            pipeline.step(name)
    if selection.only:
        return [pipeline.step(selection.only)]
    steps = list(pipeline.steps.values())
    names = [s.name for s in steps]
    return steps[: names.index(selection.until) + 1] if selection.until else steps


def run_pipeline(pipeline: Pipeline, selection: Selection, settings: Settings) -> dict[str, dict]:
    """Run the selected steps and return their manifests by name.

    Raises what `runner.run` raises; a step that fails too much stops the ones after it.
    """
    steps = selected(pipeline, selection)
    if settings.shard[1] > 1 and not selection.only:
        raise ConfigError(
            "--shard needs --only STEP", fix="Shards are parts of one step; join them with `merge`."
        )
    if ranks.size() > 1 and not selection.only:
        raise ConfigError(
            f"torchrun started {ranks.size()} processes, but only training and evaluation can share"
            " their work",
            where=f"run {pipeline.name}",
            fix="Bring what comes before up to date with one process; then add --only STEP.",
        )
    manifests = {}
    with stop.handling():
        for step in steps:
            if stop.requested():
                raise Interrupted(
                    "interrupted between two steps",
                    where=pipeline.name,
                    fix="Run the same command again.",
                )
            if selection.only:
                _require_inputs(pipeline, step)
            manifests[step.name] = run_step(
                pipeline,
                step,
                replace(settings, force=step.name in selection.force),
                finished_parts(step.out),
            )
    return manifests


def run_step(pipeline: Pipeline, step: Step, settings: Settings, parts: list[Path]) -> dict:
    """Run one step; `parts` are folders of finished shards whose items are taken over."""
    stage = pipeline.stage(step)
    return runner.run(stage, step.name, settings, reuse_from=parts, lineage=pipeline.lineage(step))


def merge(pipeline: Pipeline, step: Step, settings: Settings) -> dict:
    """Join the parts of a sharded run into the whole step, then remove them. DataError names
    missing parts.
    """
    folder = step.out / "_parts"
    parts = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not parts:
        raise DataError(
            "there are no parts to merge",
            where=folder,
            fix=f"Run {pipeline.name} --only {step.name} --shard I/N first.",
        )
    count = int(parts[0].name.rpartition("-")[2])
    wanted = [folder / f"{index:03d}-of-{count:03d}" for index in range(count)]
    fingerprint = stage_fingerprint(pipeline.stage(step))
    missing = [p.name for p in wanted if (read_manifest(p) or {}).get("fingerprint") != fingerprint]
    if missing:
        raise DataError(
            f"{len(missing)} of {count} parts are missing, unfinished or of other options:"
            f" {', '.join(missing[:3])}",
            where=folder,
            fix="Run those shards again with the same options, then merge.",
        )
    manifest = run_step(pipeline, step, settings, wanted)
    shutil.rmtree(folder)
    log.info(f"{step.name}: {count} parts merged and removed")
    return manifest


def finished_parts(out: Path) -> list[Path]:
    """Folders of the finished shards of a step."""
    folder = out / "_parts"
    return sorted(p for p in folder.iterdir() if read_manifest(p)) if folder.is_dir() else []


def _require_inputs(pipeline: Pipeline, step: Step) -> None:
    states = assess_all(pipeline)
    waiting = list(
        dict.fromkeys(
            s.name for s in pipeline.upstream(step) if states[s.name].status != UP_TO_DATE
        )
    )
    if waiting:
        raise DataError(
            f"{step.name} reads {', '.join(waiting)}, which is not up to date",
            where=pipeline.name,
            fix=f"Run it first: python cli.py run {pipeline.name} --until {step.name}",
        )
