"""Rename the entries of state dicts between published files and our models, strictly, both ways."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from models.base import Mismatch

PARAMETER = r"(weight|bias)"  # what follows the prefix of a linear layer or a norm


@dataclass(frozen=True)
class Rule:
    """One family of names: two prefixes, what may follow them, and how the tensors differ.

    rest: regular expression of what follows the prefix and is kept as it is. to_ours, to_theirs:
    change a tensor on its way; without them it stays as it is.
    """

    theirs: str
    ours: str
    rest: str = r".+"
    to_ours: Callable[[Tensor], Tensor] | None = None
    to_theirs: Callable[[Tensor], Tensor] | None = None

    def reverse(self) -> "Rule":
        """Return the rule that undoes this one."""
        return Rule(
            theirs=self.ours,
            ours=self.theirs,
            rest=self.rest,
            to_ours=self.to_theirs,
            to_theirs=self.to_ours,
        )


def to_ours(
    state: Mapping[str, Tensor], rules: Iterable[Rule], ignored: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Return a published state dict under our names, in its order.

    Shapes stay unless a rule changes them. ignored: {their key: why we do not need it}. Raises
    Mismatch that lists every key that no rule knows and every value that is not a tensor.
    """
    skipped = ignored or {}
    needed = {key: value for key, value in state.items() if key not in skipped}
    return _rename(needed, list(rules))


def to_theirs(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Return our state dict under the published names, in our order.

    Shapes stay unless a rule changes them. Raises Mismatch that lists every key that no rule knows.
    """
    return _rename(state, [rule.reverse() for rule in rules])


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose names begin with `prefix`, named without it; shapes stay."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def in_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries, those with a floating point in float32; shapes stay."""
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }


def count_parts(names: Iterable[str], prefix: str) -> int:
    """Return how many different parts lie directly below the prefix (blocks, say)."""
    below = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return len({name.partition(".")[0] for name in below})


def _rename(state: Mapping[str, Tensor], rules: list[Rule]) -> dict[str, Tensor]:
    """Return the entries renamed from `theirs` to `ours`. Raises Mismatch for what no one rule
    fits.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        fitting = [rule for rule in rules if _fits(rule, key)]
        if len(fitting) != 1 or not isinstance(value, Tensor):
            unknown.append(str(key))
            continue
        rule = fitting[0]
        name = rule.ours + key.removeprefix(rule.theirs)
        renamed[name] = rule.to_ours(value) if rule.to_ours else value
    if unknown:
        raise Mismatch(
            f"{len(unknown)} unknown entries: {', '.join(sorted(unknown))}",
            "Is this a checkpoint of the system it is imported as?",
        )
    return renamed


def _fits(rule: Rule, key: object) -> bool:
    if not isinstance(key, str):
        return False
    return re.fullmatch(re.escape(rule.theirs) + rule.rest, key) is not None
