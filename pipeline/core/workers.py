"""Run `process` on many items: supervised spawn workers that hold one item each, or inline in the
parent.

A worker that dies or hangs costs the item it held and is replaced; `pebble` names that item.
Results come back as `Answer`s, in item order or as they finish, with a bounded number of items in
flight.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass

from pipeline.core import stop
from pipeline.core.stage import Item, Outcome, Stage
from pipeline.errors import ItemError, SystemRefused, TvrError, refusal

_POLL_SECONDS = 0.2
# handed out ahead of the slowest, so that no worker waits; bounds the memory of the reorder buffer
_ITEMS_PER_WORKER = 4
_DEATHS_FORGIVEN = 2
_STOP_SECONDS = 4.0


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


def answers(
    stage: Stage, items: Iterable[Item], jobs: int, retries: int, memory_bytes: int
) -> Iterator[Answer]:
    """Answers for all items; fewer if a stop was requested. In item order for single-writer
    stores.
    """
    if stage.runs == "inline":
        yield from _inline(stage, items, retries)
    else:
        yield from _Pool(stage, jobs, retries, memory_bytes).run(
            items, in_order=stage.store == "single"
        )


def _inline(stage: Stage, items: Iterable[Item], retries: int) -> Iterator[Answer]:
    for item in items:
        if stop.requested():
            return
        for attempt in range(1, retries + 2):
            answer = _attempt(stage, item)
            answer.attempts = attempt
            if not isinstance(answer.error, OSError):
                break
        yield answer


def _attempt(stage: Stage, item: Item) -> Answer:
    start = time.perf_counter()
    outcome, error, detail = None, None, ""
    try:
        outcome = stage.process(item)
    except (ItemError, TvrError) as caught:
        error = caught
    except OSError as caught:
        error = refusal(caught) or caught
    except MemoryError:
        error = ItemError(
            "out_of_memory", "the memory limit of a worker was reached (--memory raises it)"
        )
    # a bug met on one item must not cost the others; the trace is kept with the failure
    except Exception as caught:
        if stage.runs == "inline":
            raise
        error, detail = (
            ItemError("internal", f"{type(caught).__name__}: {caught}"),
            traceback.format_exc(),
        )
    return Answer(item, outcome, error, time.perf_counter() - start, detail=detail)


class _Pool:
    def __init__(self, stage: Stage, jobs: int, retries: int, memory_bytes: int):
        self._stage, self._retries, self._jobs = stage, retries, jobs
        from pebble import ProcessPool

        self._pool = ProcessPool(
            max_workers=jobs,
            context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            # a fresh stage: what the parent opened for writing stays in the parent
            initargs=(
                type(stage)(stage.options, stage.inputs, stage.out),
                memory_bytes,
                os.getpid(),
            ),
        )
        self._waiting: deque = deque()  # (future, item, attempts), in item order

    def run(self, items: Iterable[Item], in_order: bool) -> Iterator[Answer]:
        source = iter(items)
        try:
            while True:
                self._hand_out(source)
                if not self._waiting:
                    return
                futures = [entry[0] for entry in self._waiting]
                wait(
                    futures[:1] if in_order else futures,
                    timeout=_POLL_SECONDS,
                    return_when=FIRST_COMPLETED,
                )
                yield from self._collect(in_order)
                if stop.requested():
                    yield from self._last_answers(in_order)
                    return
        finally:
            with contextlib.suppress(Exception):
                self._pool.stop()
                self._pool.join(timeout=2)

    def _hand_out(self, source: Iterator[Item]) -> None:
        while not stop.requested() and len(self._waiting) < self._jobs * _ITEMS_PER_WORKER:
            item = next(source, None)
            if item is None:
                return
            self._waiting.append((self._schedule(item), item, 1))

    def _schedule(self, item: Item):
        return self._pool.schedule(_work, args=[item], timeout=self._stage.timeout(item))

    def _collect(self, in_order: bool) -> list[Answer]:
        """Answers that are there; an item to be tried again keeps its place."""
        found, kept = [], deque()
        while self._waiting:
            future, item, attempts = self._waiting.popleft()
            if not future.done():
                kept.append((future, item, attempts))
                if in_order:
                    break
                continue
            answer = self._answer(future, item, attempts)
            if self._again(answer):
                kept.append((self._schedule(item), item, attempts + 1))
                if in_order:
                    break
                continue
            found.append(answer)
        self._waiting.extendleft(reversed(kept))
        return found

    def _again(self, answer: Answer) -> bool:
        if stop.requested():
            return False
        if isinstance(answer.error, OSError):
            return answer.attempts <= self._retries
        died = isinstance(answer.error, ItemError) and answer.error.reason == "worker_died"
        return died and answer.attempts <= max(self._retries, _DEATHS_FORGIVEN)

    def _answer(self, future, item: Item, attempts: int) -> Answer:
        from pebble import ProcessExpired

        try:
            answer = future.result()
        except TimeoutError:
            limit = self._stage.timeout(item)
            answer = Answer(
                item,
                None,
                ItemError("timeout", f"not finished after {limit:.0f} s; its worker was ended"),
            )
        except ProcessExpired as error:
            answer = Answer(item, None, ItemError("worker_died", _how(error.exitcode)))
        answer.item, answer.attempts = item, attempts
        return answer

    def _last_answers(self, in_order: bool) -> list[Answer]:
        """After a stop: what is in hand may finish within a few seconds, the rest is dropped (and
        redone next time).
        """
        for future, _, _ in self._waiting:
            if not future.running():
                future.cancel()
        running = [entry for entry in self._waiting if not entry[0].cancelled()]
        self._waiting = deque(running)
        wait([entry[0] for entry in running], timeout=_STOP_SECONDS)
        return self._collect(in_order)


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = (
            signal.Signals(-exit_code).name
            if -exit_code in set(signal.Signals)
            else f"signal {-exit_code}"
        )
        hint = " (the system may have run out of memory)" if exit_code == -signal.SIGKILL else ""
        return f"the worker process was ended by {name}{hint}"
    return f"the worker process ended with code {exit_code}"


_stage: Stage | None = None  # the one stage a worker process serves; set once by its initializer


def _begin(stage: Stage, memory_bytes: int, parent: int) -> None:
    global _stage
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many workers as cores: one thread each
    if memory_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    _stage = stage


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(item: Item) -> Answer:
    answer = _attempt(_stage, item)
    if isinstance(answer.error, SystemRefused):
        answer.detail = str(answer.error)
    return answer
