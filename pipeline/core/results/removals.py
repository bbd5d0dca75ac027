"""An input that is empty, not mounted or unreadable today never empties what was made from it.

No item at all, or fewer than half of the former ones left, is taken for a fault of the input until
the user says otherwise (`--allow-removals`).
"""

from pipeline.core.stage import Item, Stage
from pipeline.core.state import Record
from pipeline.errors import DataError, TooManyFailures

_SURE = "If this is meant, add --allow-removals."


def expect_inputs(
    stage: Stage,
    everything: list[Item],
    items: list[Item],
    before: dict[str, Record],
    allowed: bool,
) -> int:
    """Return how many of the former items are no longer there.

    everything: all items of the stage; items: those of this shard; before: what the journal lists.
    Raises DataError, before anything is touched, if the inputs are watched and more than half of
    the former ones, or all, are gone.
    """
    present = {item.id for item in items}
    gone = [i for i in before if i not in present]
    if allowed or not stage.watches_inputs:
        return len(gone)
    if not everything:
        raise DataError(
            f"the input holds 0 items, it held {len(before):,} before; nothing was changed"
            if before
            else "the input holds 0 items; there is nothing to do",
            where=_place(stage),
            fix=f"Check that it is the right folder and its disk is mounted. {_SURE}",
        )
    names = {stage.input_name(i.id) for i in items}
    lost = {stage.input_name(i) for i in gone} - names
    former = {stage.input_name(i) for i in before}
    if 2 * len(lost) > len(former):
        raise DataError(
            f"{len(lost):,} of the {len(former):,} former inputs are gone, {len(names):,} are"
            " there now; nothing was changed",
            where=_place(stage),
            fix=(
                "Check that it is the right folder, complete and readable, or choose another output"
                f" folder. {_SURE}"
            ),
        )
    return len(gone)


def expect_results(
    name: str, usable_before: frozenset[str], records: list[Record], allowed: bool
) -> None:
    """TooManyFailures if more than half of the items that had a result fail now: their results are
    kept.
    """
    failing = [r for r in records if not r.usable and r.id in usable_before]
    if not allowed and 2 * len(failing) > len(usable_before):
        first = failing[0]
        raise TooManyFailures(
            f"{len(failing):,} of the {len(usable_before):,} items that had a result fail now, the"
            f" first is {first.id!r}: {first.message}; their results are kept",
            where=name,
            fix=f"Check that the inputs can be read, then run the same command again. {_SURE}",
        )


def _place(stage: Stage) -> str:
    """Return the first input of a stage that is a place on disk."""
    for value in stage.inputs.values():
        for made in value if isinstance(value, list) else [value]:
            if made is not None:
                return str(made.path)
    return str(stage.out)
