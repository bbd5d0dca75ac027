"""What differs between a result that is there and the one that is asked for, in words."""

from pipeline.core.artefact import Artefact

_SHOWN = 4
_LONGEST_VALUE = 40


def options(before: dict[str, dict], now: dict[str, dict], step: str) -> list[str]:
    """Return each option that differs, of this step and of those before it: "train.epochs 4 -> 6".

    before, now: options by step name (`lineage` of a manifest). step: the one that is asked for; a
    step that ran alone may have had another name.
    """
    if step not in before and len(before) == len(now) == 1:
        before = {step: next(iter(before.values()))}
    changes = []
    for name in now:
        old, new = before.get(name), now[name]
        if old is None:
            changes.append(f"new step {name} before it")
            continue
        for path, was, is_now in _pairs(old, new):
            changes.append(f"{name}.{path} {_short(was)} -> {_short(is_now)}")
    changes += [f"step {name} is no longer before it" for name in before if name not in now]
    return changes[:_SHOWN]


def inputs(before: dict, now: dict[str, Artefact | list[Artefact] | None]) -> list[str]:
    """Return each input whose content differs: "annotations changed". before: `inputs` of a
    manifest.
    """
    changes = []
    for need, value in now.items():
        old = before.get(need)
        if isinstance(value, list):
            was = [entry.get("content") for entry in old] if isinstance(old, list) else []
            same = was == [made.known_content for made in value]
        else:
            was = old.get("content") if isinstance(old, dict) else None
            same = was == (value.known_content if value is not None else None)
        if not same:
            changes.append(f"{need} changed")
    return changes[:_SHOWN]


def _pairs(old: object, new: object, path: str = "") -> list[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            found += _pairs(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if old == new else [(path, old, new)]


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
