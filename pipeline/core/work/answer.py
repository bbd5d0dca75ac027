"""How one item ended, and the one call of `process` that decides it."""

import time
import traceback
from dataclasses import dataclass

from pipeline.core.stage import Item, Outcome, Stage
from pipeline.errors import ItemError, TvrError, refusal


@dataclass
class Answer:
    """How one item ended. `error`: None, an ItemError (bad item), an OSError (try again) or a
    TvrError (stop all).
    """

    item: Item
    outcome: Outcome | None
    error: Exception | None
    seconds: float = 0.0
    attempts: int = 1
    detail: str = ""
    is_borrowed: bool = False  # from a finished store


def attempt(stage: Stage, item: Item) -> Answer:
    """Call `process` once. Bugs met in a worker become an ItemError; inline they are raised."""
    start = time.perf_counter()
    outcome, error, detail = None, None, ""
    try:
        outcome = stage.process(item)
    except (ItemError, TvrError) as caught:
        error = caught
    except OSError as caught:
        error = refusal(caught) or caught
    except MemoryError:
        error = out_of_memory()
    # a bug met on one item must not cost the others; the trace is kept with the failure
    except Exception as caught:
        if stage.runs == "inline":
            raise
        error, detail = (
            ItemError("internal", f"{type(caught).__name__}: {caught}"),
            traceback.format_exc(),
        )
    return Answer(item, outcome, error, time.perf_counter() - start, detail=detail)


def out_of_memory() -> ItemError:
    return ItemError(
        "out_of_memory", "the memory limit of a worker was reached (--memory raises it)"
    )
