"""The state of each step of a pipeline, and why: up to date, stale (why), partial n/N, blocked, not
started.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.manifest import stage_fingerprint
from pipeline.core.plan import DATASET, Pipeline, Step, dataset_fault, is_path
from pipeline.core.stage import Item, Stage
from pipeline.core.state import STATE, Journal, Record, read_manifest, stored_bytes
from pipeline.core.todo import items_digest, list_items, outputs_exist
from pipeline.errors import TvrError

UP_TO_DATE, STALE, PARTIAL, BLOCKED, NEW = (
    "up to date",
    "stale",
    "partial",
    "blocked",
    "not started",
)


@dataclass
class State:
    """`todo`: ids that a run would process now (None while that cannot be known: an input is not
    there yet).
    """

    status: str
    why: str = ""
    done: int = 0
    total: int | None = None
    failed: int = 0
    seconds: float = 0.0
    bytes: int = 0
    todo: list[str] | None = field(default_factory=list)

    def __str__(self) -> str:
        if self.status == PARTIAL:
            return f"partial {self.done:,}/{self.total:,}"
        return f"{self.status}: {self.why}" if self.why else self.status


def assess_all(pipeline: Pipeline) -> dict[str, State]:
    """The state of every step, by name, in order."""
    states: dict[str, State] = {}
    for step in pipeline.steps.values():
        states[step.name] = _assess(pipeline, step, states)
    return states


def missing_inputs(
    pipeline: Pipeline, source_of: Callable[[Path], str] = lambda path: ""
) -> dict[str, str]:
    """What a run would look for and not find: {"dataset" or "step.option": what, where and what to
    do}.

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


def _absent(path: Path, source: str) -> str:
    return f"{path}: there is no such file or folder" + (f"; from: {source}" if source else "")


def _given(step: Step) -> Iterator[tuple[str, list[Path], str]]:
    """Paths that a step is given: (need or option, paths, what it is)."""
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
    state.seconds = (
        manifest["seconds"] if manifest else round(sum(r.seconds for r in records.values()), 2)
    )
    waiting = [s.name for s in pipeline.upstream(step) if states[s.name].status != UP_TO_DATE]
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
    return _compare(pipeline, step, stage, state, manifest, records, items)


def _compare(
    pipeline: Pipeline,
    step: Step,
    stage: Stage,
    state: State,
    manifest: dict | None,
    records: dict[str, Record],
    items: list[Item],
) -> State:
    fingerprint = stage_fingerprint(stage)
    valid = {
        i.id
        for i in items
        if (r := records.get(i.id))
        and r.step == fingerprint
        and r.key == i.key
        and outputs_exist(step.out, r)
    }
    state.total, state.todo = len(items), [i.id for i in items if i.id not in valid]
    current = (
        manifest
        and manifest["fingerprint"] == fingerprint
        and manifest["items"] == items_digest(items)
    )
    if current and not state.todo:
        state.status = UP_TO_DATE
    elif current:
        state.status, state.why = (
            STALE,
            f"output files of {len(state.todo):,} items are missing or changed in size",
        )
    elif manifest and manifest["fingerprint"] != fingerprint:
        state.status, state.why = (
            STALE,
            _changed_options(manifest["lineage"], pipeline.lineage(step), step),
        )
    elif manifest:
        state.status, state.why = STALE, _changed_items(records, items)
    elif valid:
        state.status, state.done = PARTIAL, len(valid)
    return state


def _changed_options(before: dict[str, dict], now: dict[str, dict], step: Step) -> str:
    changes = []
    for name in now:
        old, new = before.get(name), now[name]
        if old is None:
            changes.append(f"new step {name} before it")
            continue
        for path, was, is_now in _differences(old, new):
            changes.append(f"{name}.{path} {_short(was)} -> {_short(is_now)}")
    changes += [f"step {name} is no longer before it" for name in before if name not in now]
    return (
        "; ".join(changes[:4])
        if changes
        else f"{step.name} or a step before it has a new version or wiring"
    )


def _differences(old: object, new: object, path: str = "") -> list[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            found += _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if old == new else [(path, old, new)]


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _changed_items(records: dict[str, Record], items: list[Item]) -> str:
    now = {i.id: i.key for i in items}
    counts = {
        "new": sum(i not in records for i in now),
        "changed": sum(i in records and records[i].key != key for i, key in now.items()),
        "removed": sum(i not in now for i in records),
    }
    return (
        ", ".join(f"{n:,} {word}" for word, n in counts.items() if n)
        or "the order of its items changed"
    )
