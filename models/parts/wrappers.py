"""State dicts as people save them: inside other dictionaries, with prefixes before every name.

`torch.save(ddp.state_dict())` puts `module.` in front, `torch.compile` `_orig_mod.`, Lightning
`model.` and the dictionary `state_dict`, tutorials the dictionary `model_state_dict`; all of them
may meet in one file, in any order. A name that every state dict of a system has (its anchor) tells
what the prefix is, whatever it is called.
"""

import re
from collections.abc import Iterable, Mapping

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "ema_state_dict")
_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_DEEPEST = 6

State = Mapping[str, object]


def unwrapped(
    value: object, anchors: Iterable[str]
) -> tuple[dict[str, object], dict[str, object]] | None:
    """Return the state dict without prefixes and what lay beside it, or None without an anchor.

    value: what a file holds. The tensors are those given. Entries without the prefix keep their
    names, so that whoever reads the state dict can name them.
    """
    anchors = tuple(anchors)
    beside: dict[str, object] = {}
    for _ in range(_DEEPEST):
        if not isinstance(value, Mapping):
            return None
        names = {_COMPILED.sub(r"\1", name): name for name in value if isinstance(name, str)}
        prefix = _prefix(names, anchors)
        if prefix is not None and len(names) == len(value):
            return {ours.removeprefix(prefix): value[name] for ours, name in names.items()}, beside
        inner = next((key for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            return None
        beside = {key: part for key, part in value.items() if key != inner} | beside
        value = value[inner]
    return None


def bare(value: object, anchor: str) -> object:
    """Return the state dict alone, without prefixes, or `value` itself without the anchor."""
    found = unwrapped(value, [anchor])
    return value if found is None else found[0]


def in_dictionary(value: object, anchor: str) -> object:
    """Return {"state_dict": without prefixes, and what lay beside it}; a bare one stays bare."""
    found = unwrapped(value, [anchor])
    if found is None:
        return value
    state, beside = found
    return beside | {"state_dict": state} if beside or "state_dict" in value else state


def _prefix(names: Iterable[str], anchors: tuple[str, ...]) -> str | None:
    """Return what stands in front of the first anchor that is there, or None without one."""
    for anchor in anchors:
        for name in names:
            if name == anchor or name.endswith(f".{anchor}"):
                return name.removesuffix(anchor)
    return None
