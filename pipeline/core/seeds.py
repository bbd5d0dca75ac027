"""A step that chance decides, made several times: `seeds: 3`, or `train --seeds 3`.

The first run is the step itself; the others stand beside it, `<step>-seed<number>`. So a step that
is there keeps its name and its result when more seeds are asked for.
"""

import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from pipeline.core.stage import Stage

MOST = 100
_MARK = "-seed"


def repeated(
    kind: type[Stage], name: str, options: BaseModel, count: int
) -> Iterator[tuple[str, BaseModel]]:
    """Yield the name and the options of each of `count` runs of a step."""
    yield name, options
    for place in range(1, count):
        changed, seed = kind.with_seed(options, place)
        yield f"{name}{_MARK}{seed}", changed


def fault(kind: type[Stage], count: object) -> str:
    """Return what is wrong with `seeds: COUNT`, "" if nothing is."""
    if not kind.is_seeded:
        return "only a train step is made with several seeds. Remove it."
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST:
        return f"a whole number from 1 to {MOST}, not {count!r}. For example 3."
    return ""


def groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the runs of each step that was made with several seeds, by its name, in their order.

    names: of steps, of which some may be runs of one step.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        base = re.sub(rf"{_MARK}\d+$", "", name)
        if base != name and base in names:
            found.setdefault(base, [base]).append(name)
    return found
