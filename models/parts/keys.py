"""Renaming the entries of state dicts between published files and our models, strictly, in both
directions.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from models.base import Mismatch


@dataclass(frozen=True)
class Rule:
    """One family of names: two prefixes, what may follow them, and how the tensors differ (default:
    not at all).
    """

    theirs: str
    ours: str
    rest: str = r".+"  # regular expression of what follows the prefix, kept as it is
    to_ours: Callable[[Tensor], Tensor] | None = None
    to_theirs: Callable[[Tensor], Tensor] | None = None


def to_ours(
    state: Mapping[str, Tensor], rules: Iterable[Rule], ignored: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """A published state dict under our names, in its order. ignored: {their key: why we do not need
    it}.

    Raises Mismatch that lists every key no rule knows, or what is not a tensor.
    """
    renamed = [(rule.theirs, rule.ours, rule.rest, rule.to_ours) for rule in rules]
    return _rename({k: v for k, v in state.items() if k not in (ignored or {})}, renamed)


def to_theirs(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Our state dict under the published names, in our order. Raises Mismatch for keys no rule
    knows.
    """
    return _rename(state, [(rule.ours, rule.theirs, rule.rest, rule.to_theirs) for rule in rules])


def _rename(state: Mapping[str, Tensor], rules: list[tuple]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        fits = [
            rule
            for rule in rules
            if isinstance(key, str) and re.fullmatch(re.escape(rule[0]) + rule[2], key)
        ]
        if len(fits) != 1 or not isinstance(value, Tensor):
            unknown.append(str(key))
            continue
        before, after, _, change = fits[0]
        renamed[after + key.removeprefix(before)] = change(value) if change else value
    if unknown:
        raise Mismatch(
            f"{len(unknown)} unknown entries: {', '.join(sorted(unknown))}",
            "Is this a checkpoint of the system it is imported as?",
        )
    return renamed
