"""The state of each step of a pipeline, and why: up to date, stale (why), partial n/N, blocked, not
started.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.manifest import stage_fingerprint
from pipeline.core.plan import DATASET, Mistakes, Pipeline, Step, dataset_fault, is_path
from pipeline.core.results import differences, generations, intact
from pipeline.core.stage import Item, Stage
from pipeline.core.state import STATE, Journal, Record, read_manifest, stored_bytes
from pipeline.core.todo import items_digest, list_items, outputs_exist
from pipeline.errors import ConfigError, DataError, TvrError

UP_TO_DATE, STALE, PARTIAL, BLOCKED, NEW = (
    "up to date",
    "stale",
    "partial",
    "blocked",
    "not started",
)


_BAD = ("damaged", "failed")
_NAMED = 3  # ids of damaged and failed items that are shown


@dataclass
class State:
    """`todo`: ids that a run would process now (None while that cannot be known: an input is not
    there yet). named: ids of the first items that are "damaged" and "failed". kept: what was set
    aside. replaces: what a run would set aside or replace.
    """

    status: str
    why: str = ""
    done: int = 0
    total: int | None = None
    failed: int = 0
    seconds: float = 0.0
    bytes: int = 0
    todo: list[str] | None = field(default_factory=list)
    damaged: int = 0
    named: dict[str, list[str]] = field(default_factory=dict)
    kept: list[generations.Kept] = field(default_factory=list)
    replaces: str = ""

    def __str__(self) -> str:
        if self.status == PARTIAL:
            return f"partial {self.done:,}/{self.total:,}"
        return f"{self.status}: {self.why}" if self.why else self.status


def assess_all(pipeline: Pipeline) -> dict[str, State]:
    """Return the state of every step, by name, in order."""
    states: dict[str, State] = {}
    for step in pipeline.steps.values():
        states[step.name] = _assess(pipeline, step, states)
    return states


def missing_inputs(
    pipeline: Pipeline, source_of: Callable[[Path], str] = lambda path: ""
) -> dict[str, str]:
    """Return what a run would look for and not find: {"dataset" or "step.option": what, where and
    what to do}.

    source_of: where to get the published file that belongs at a path, "" if that is not known.
    Steps that still wait for others are asked too, so that everything can be put into place at
    once.
    """
    found: dict[str, str] = {}
    needs = [
        (step.kind.needs[n].kind, s)
        for step in pipeline.steps.values()
        for n, s in step.wiring.items()
    ]
    kinds = {kind for kind, sources in needs if DATASET in sources}
    # the annotations say which videos there are
    if kinds and (fault := dataset_fault(pipeline.dataset, kinds | {"annotations"})):
        found[DATASET] = fault
    for step in pipeline.steps.values():
        for name, paths, meaning in _given(step):
            if absent := [_absent(path, source_of(path)) for path in paths if not path.exists()]:
                found[f"{step.name}.{name}"] = "\n    ".join([*absent, meaning])
    return found


def expect_inputs(
    pipeline: Pipeline, steps: list[Step], source_of: Callable[[Path], str] = lambda path: ""
) -> None:
    """Raise DataError that lists every file which these steps are given and which is not there, and
    what is wrong with the captions of the data set if one of them reads these.

    Videos are not counted: a data set of which some videos are gone is used all the same.
    """
    if faults := _faults_of_inputs(pipeline, steps, source_of):
        raise DataError(
            "inputs are missing; no step was started:\n    " + "\n    ".join(faults),
            where=f"run {pipeline.name}",
            fix="Put them into place, or name other places with --set.",
        )


def with_missing_inputs(
    mistakes: Mistakes, source_of: Callable[[Path], str] = lambda path: ""
) -> ConfigError:
    """Return the mistakes of a pipeline together with the inputs that its right steps miss, so that
    one run tells both.
    """
    steps = list(mistakes.pipeline.steps.values())
    try:
        faults = _faults_of_inputs(mistakes.pipeline, steps, source_of)
    except ConfigError:  # of the data set: it is among the mistakes
        faults = []
    if not faults:
        return mistakes
    told = "inputs are missing, too:\n    " + "\n    ".join(faults)
    return ConfigError(f"{mistakes.what}\n{told}")


def _faults_of_inputs(
    pipeline: Pipeline, steps: list[Step], source_of: Callable[[Path], str]
) -> list[str]:
    faults = []
    kinds = [(s.kind.needs[n].kind, names) for s in steps for n, names in s.wiring.items()]
    if any(kind == "annotations" and DATASET in names for kind, names in kinds):
        faults += filter(None, [dataset_fault(pipeline.dataset, {"annotations"})])
    for step in steps:
        for name, paths, meaning in _given(step):
            absent = [_absent(path, source_of(path)) for path in paths if not path.exists()]
            faults += [f"{step.name}.{name}: {line}. {meaning}" for line in absent]
    return faults


def _absent(path: Path, source: str) -> str:
    return f"{path}: there is no such file or folder" + (f"; from: {source}" if source else "")


def _given(step: Step) -> Iterator[tuple[str, list[Path], str]]:
    """Yield paths that a step is given: (need or option, paths, what it is)."""
    for need, sources in step.wiring.items():
        yield (
            need,
            [Path(s) for s in sources if is_path(s)],
            step.kind.needs[need].help or step.kind.needs[need].kind,
        )
    for name, option in step.kind.Options.model_fields.items():
        yield name, _paths_in(getattr(step.options, name)), str(option.description)


def _paths_in(value: object) -> list[Path]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (
        [value] if isinstance(value, Path) else [path for part in inner for path in _paths_in(part)]
    )


def _assess(pipeline: Pipeline, step: Step, states: dict[str, State]) -> State:
    stage = pipeline.stage(step)
    manifest = read_manifest(step.out)
    records = Journal(step.out / STATE / "items.jsonl").load().records
    usable = [r for r in records.values() if r.usable]
    failed = len(records) - len(usable)
    state = State(NEW, done=len(usable), failed=failed, bytes=stored_bytes(usable))
    bad = {word: [i for i, r in records.items() if r.status == word] for word in _BAD}
    state.damaged, state.named = len(bad["damaged"]), {w: ids[:_NAMED] for w, ids in bad.items()}
    state.kept = generations.kept_results(step.out)
    state.seconds = (
        manifest.get("seconds", 0.0)
        if manifest
        else round(sum(r.seconds for r in records.values()), 2)
    )
    waiting = [s.name for s in pipeline.upstream(step) if states[s.name].status != UP_TO_DATE]
    if manifest is not None:
        state.replaces = replaced(step)
    if waiting:
        state.status, state.why, state.todo = (
            BLOCKED,
            f"waits for {', '.join(dict.fromkeys(waiting))}",
            None,
        )
        return state
    if absent := [
        s
        for sources in step.wiring.values()
        for s in sources
        if is_path(s) and not Path(s).exists()
    ]:
        state.status, state.why, state.todo = (
            BLOCKED,
            f"{absent[0]}: there is no such file or folder",
            None,
        )
        return state
    if stage.inputs.get("annotations") is not None and not stage.inputs["annotations"].content:
        state.status, state.why, state.todo = BLOCKED, "the files of the dataset are missing", None
        return state
    try:
        items = list_items(stage)
    except (TvrError, OSError) as error:
        state.status, state.why, state.todo = BLOCKED, str(error).splitlines()[0], None
        return state
    return _compare(
        pipeline, step, stage=stage, state=state, manifest=manifest, records=records, items=items
    )


def _compare(
    pipeline: Pipeline,
    step: Step,
    stage: Stage,
    state: State,
    manifest: dict | None,
    records: dict[str, Record],
    items: list[Item],
) -> State:
    fingerprint, folder = stage_fingerprint(stage), step.out
    damaged = intact.faults(folder, intact.recorded(manifest, records.values())) if manifest else {}
    lends = not (damaged and stage.store == "single")
    places = [(folder, records, frozenset(damaged))] if lends else []
    begun = Journal(folder / generations.NEW / STATE / "items.jsonl").load().records
    places.append((folder / generations.NEW, begun, frozenset()))
    valid = {
        i.id
        for i in items
        for place, known, lost in places
        if (r := known.get(i.id))
        and r.step == fingerprint
        and r.key == i.key
        and outputs_exist(place, r, lost)
    }
    state.total, state.todo = len(items), [i.id for i in items if i.id not in valid]
    current = (
        manifest
        and manifest.get("fingerprint", "") == fingerprint
        and manifest.get("items") == items_digest(items)
        and records.keys() == {i.id for i in items}
    )
    if current and not state.todo and not damaged:
        state.status, state.replaces = UP_TO_DATE, ""
    elif current:
        state.status, state.why = STALE, intact.described(damaged) or "its journal was changed"
    elif manifest and manifest.get("fingerprint", "") != fingerprint:
        changed = differences.options(manifest["lineage"], pipeline.lineage(step), step.name)
        state.status, state.why = (
            STALE,
            "; ".join(changed) or f"{step.name} or a step before it has a new version or wiring",
        )
    elif manifest:
        changed = differences.inputs(manifest.get("inputs") or {}, stage.inputs)
        state.status, state.why = STALE, _changed_items(records, items, changed)
    elif valid:
        state.status, state.done = PARTIAL, len(valid)
    return state


def replaced(step: Step) -> str:
    """Return what a run of a step that has a complete result does with it."""
    if step.kind.keeps:
        return f"the present result would be kept in {step.out / generations.PREVIOUS}"
    return "the present result would stay until the new one is complete"


def _changed_items(records: dict[str, Record], items: list[Item], inputs: list[str]) -> str:
    now = {i.id: i.key for i in items}
    counts = {
        "new": sum(i not in records for i in now),
        "changed": sum(i in records and records[i].key != key for i, key in now.items()),
        "removed": sum(i not in now for i in records),
    }
    counted = ", ".join(f"{n:,} {word}" for word, n in counts.items() if n)
    if not counted:
        return "the order of its items changed"
    return f"{counted} ({', '.join(inputs)})" if inputs else counted
