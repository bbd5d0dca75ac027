"""Bring the steps of a pipeline up to date, in order; merge the parts of a sharded step."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import log, registry
from pipeline.core import ranks, runner, stop
from pipeline.core.artefact import Artefact, GivenArtefact
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.plan import DATASET, Pipeline, Step, dataset_artefact, is_path
from pipeline.core.results.generations import PARTS
from pipeline.core.results.intact import expect_intact
from pipeline.core.stage import Stage
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
    """Return the steps a selection names, in order. ConfigError for unknown names."""
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
    for sources in step.wiring.values():
        for source in sources:
            if is_path(source):
                expect_intact(Path(source))
    stage = pipeline.stage(step)
    return runner.run(stage, step.name, settings, reuse_from=parts, lineage=pipeline.lineage(step))


def merge(pipeline: Pipeline, step: Step, settings: Settings) -> dict:
    """Join the parts of a sharded step of a pipeline into the whole step, then remove them.
    DataError names missing parts.
    """
    again = f"python cli.py run {pipeline.name} --only {step.name} --shard I/N"
    return _merge(pipeline.stage(step), step.name, settings, pipeline.lineage(step), again)


def merge_folder(out: Path, settings: Settings) -> dict:
    """Join the parts in the --out folder of a stage that ran alone: stage, options and inputs are
    those that the parts were made with.
    """
    for part in finished_parts(out):
        manifest = read_manifest(part)
        again = f"python cli.py {manifest['stage']} ... --out {out} --shard I/N"
        return _merge(remade(manifest, out), manifest["step"], settings, {}, again)
    raise DataError(
        "there are no finished parts to merge",
        where=out / PARTS,
        fix="Run the stage with --shard I/N for every I first.",
    )


def _merge(stage: Stage, name: str, settings: Settings, lineage: dict, again: str) -> dict:
    folder = stage.out / PARTS
    parts = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not parts:
        raise DataError("there are no parts to merge", where=folder, fix=f"Run first: {again}")
    count = int(parts[0].name.rpartition("-")[2])
    wanted = [folder / f"{index:03d}-of-{count:03d}" for index in range(count)]
    fingerprint = stage_fingerprint(stage)
    missing = [p.name for p in wanted if (read_manifest(p) or {}).get("fingerprint") != fingerprint]
    if missing:
        raise DataError(
            f"{len(missing)} of {count} parts are missing, unfinished or of other options:"
            f" {', '.join(missing[:3])}",
            where=folder,
            fix=f"Run those shards again with the same options, then merge: {again}",
        )
    for part in wanted:
        expect_intact(part)
    manifest = runner.run(stage, name, settings, reuse_from=wanted, lineage=lineage)
    shutil.rmtree(folder)
    log.info(f"{name}: {count} parts merged and removed")
    return manifest


def remade(manifest: dict, out: Path) -> Stage:
    """Return the stage that a manifest tells of, with its inputs as they are on disk now."""
    kind = registry.find("stage", manifest["stage"]).Stage
    options = registry.options(kind.Options, manifest.get("options", {}), str(out))

    def input_of(need: str, told: dict) -> Artefact:
        path, spec = Path(told["path"]), kind.needs[need]
        now = read_manifest(path)
        if now is not None:
            return Artefact(
                kind=spec.kind,
                path=path,
                fingerprint=now.get("fingerprint", ""),
                content=now["content"],
                step=now["step"],
                options=now.get("options", {}),
            )
        if told["step"] == DATASET:
            return dataset_artefact(told["options"], spec.kind)
        return GivenArtefact(spec.kind, path, told.get("fingerprint", ""))

    inputs = {}
    for need in kind.needs:
        told = manifest["inputs"].get(need)
        if isinstance(told, list):
            inputs[need] = [input_of(need, one) for one in told]
        else:
            inputs[need] = input_of(need, told) if told else None
    return kind(options, inputs, out)


def finished_parts(out: Path) -> list[Path]:
    """Folders of the finished shards of a step."""
    folder = out / PARTS
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
