"""Run `process` on many items: in supervised worker processes, or inline in the parent.

Results come back as `Answer`s, in item order or as they finish, with a bounded number of items in
flight. A worker that dies or hangs costs the item it held and is replaced: see
`pipeline/core/work/pool.py`.
"""

import time
from collections.abc import Iterable, Iterator

from pipeline.core import stop
from pipeline.core.stage import Item, Stage
from pipeline.core.work.answer import Answer, attempt
from pipeline.core.work.pool import Pool
from pipeline.core.work.settings import Settings
from pipeline.errors import ItemError

_POLL_SECONDS = 0.2
# handed out ahead of the slowest, so that no worker waits; bounds the memory of the reorder buffer
_ITEMS_PER_WORKER = 4
_DEATHS_FORGIVEN = 2
_STOP_SECONDS = 4.0


def answers(stage: Stage, items: list[Item], settings: Settings) -> Iterator[Answer]:
    """Answers for all items; fewer if a stop was requested. In item order for single-writer
    stores.
    """
    if stage.runs == "inline":
        yield from _inline(stage, items, settings.retries)
    else:
        yield from _InWorkers(stage, items, settings).answers()


def _inline(stage: Stage, items: Iterable[Item], retries: int) -> Iterator[Answer]:
    for item in items:
        if stop.requested():
            return
        for count in range(1, retries + 2):
            answer = attempt(stage, item)
            answer.attempts = count
            if not isinstance(answer.error, OSError):
                break
        yield answer


class _InWorkers:
    """Hands items to a pool, tries some again, and puts answers into order where that is asked
    for.
    """

    def __init__(self, stage: Stage, items: list[Item], settings: Settings):
        self._source = iter(enumerate(items))
        self._settings, self._in_order = settings, stage.store == "single"
        jobs = min(settings.workers, len(items))
        self._ahead = jobs * _ITEMS_PER_WORKER
        self._pool = Pool(stage, jobs, settings.memory_bytes)
        self._attempts: dict[int, int] = {}  # of what is handed out
        self._buffer: dict[int, Answer] = {}  # answers whose turn has not come
        self._next = 0

    def answers(self) -> Iterator[Answer]:
        try:
            while True:
                self._hand_out()
                if not self._attempts:
                    return
                yield from self._take(_POLL_SECONDS)
                if stop.requested():
                    yield from self._last()
                    return
        finally:
            self._pool.stop()

    def _hand_out(self) -> None:
        while not stop.requested() and len(self._attempts) + len(self._buffer) < self._ahead:
            entry = next(self._source, None)
            if entry is None:
                return
            self._attempts[entry[0]] = 1
            self._pool.put(*entry)

    def _take(self, seconds: float) -> list[Answer]:
        """Answers that are there, after waiting so long for the first."""
        found = []
        for number, answer in self._pool.results(seconds):
            answer.attempts = self._attempts[number]
            if self._again(answer):
                self._attempts[number] += 1
                self._pool.put(number, answer.item)
                continue
            del self._attempts[number]
            if self._in_order:
                self._buffer[number] = answer
            else:
                found.append(answer)
        while self._next in self._buffer:
            found.append(self._buffer.pop(self._next))
            self._next += 1
        return found

    def _again(self, answer: Answer) -> bool:
        if stop.requested():
            return False
        if isinstance(answer.error, OSError):
            return answer.attempts <= self._settings.retries
        died = isinstance(answer.error, ItemError) and answer.error.reason == "worker_died"
        return died and answer.attempts <= max(self._settings.retries, _DEATHS_FORGIVEN)

    def _last(self) -> Iterator[Answer]:
        """After a stop: what is in hand may finish within a few seconds, the rest is dropped (and
        redone next time).
        """
        for number in self._pool.withdraw():
            del self._attempts[number]
        end = time.monotonic() + _STOP_SECONDS
        while self._attempts and time.monotonic() < end:
            yield from self._take(_POLL_SECONDS)
