"""Worker processes, each with a pipe of its own: the parent survives the death of any of them.

A worker holds one item at a time, so the item that a death or a time limit costs is known; one that
dies without an item is replaced. There are no locks or queues that processes share: whatever a
process holds when it is killed concerns it alone. A thread in the parent hands out items and reads
answers, so that workers go on while the parent writes.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pipeline.core.stage import Item, Stage
from pipeline.core.work.answer import Answer, attempt, out_of_memory
from pipeline.errors import ItemError, SystemRefused

_POLL_SECONDS = 0.2
_LEAST_ROOM = 64 << 20  # bytes that a worker needs beyond what it has when it begins
_BARREN = 3  # workers in a row, per place, that may end before they have answered anything


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    is_ready: bool = False
    number: int | None = None  # of the item it holds
    item: Item | None = None
    deadline: float = field(default=float("inf"))


class Pool:
    """`size` workers for one stage. `put` items, read `results`, then `stop`.

    memory_bytes: limit of the address space of a worker, 0: none.
    """

    def __init__(self, stage: Stage, size: int, memory_bytes: int):
        # a fresh stage: what the parent opened for writing stays in the parent
        self._fresh = type(stage)(stage.options, stage.inputs, stage.out)
        self._stage, self._size, self._memory = stage, size, memory_bytes
        self._workers: list[_Worker] = []
        self._waiting: deque[tuple[int, Item]] = deque()
        self._lock = threading.Lock()  # of `_waiting`
        self._results: queue.SimpleQueue[tuple[int, Answer] | BaseException] = queue.SimpleQueue()
        self._barren = 0
        self._stopped = False
        self._bell, self._ear = multiprocessing.Pipe()
        self._thread = threading.Thread(target=self._supervise, name="workers", daemon=True)
        self._thread.start()

    def put(self, number: int, item: Item) -> None:
        """Hand over an item; its answer comes under `number`."""
        with self._lock:
            self._waiting.append((number, item))
        self._ring()

    def withdraw(self) -> list[int]:
        """Take back the items that no worker holds; their numbers."""
        with self._lock:
            numbers = [number for number, _ in self._waiting]
            self._waiting.clear()
        return numbers

    def results(self, seconds: float) -> Iterator[tuple[int, Answer]]:
        """Yield what has been answered; waits so long for the first. SystemRefused if workers
        cannot start.
        """
        with contextlib.suppress(queue.Empty):
            found = self._results.get(timeout=seconds)
            while True:
                if isinstance(found, BaseException):
                    raise found
                yield found
                found = self._results.get_nowait()

    def stop(self) -> None:
        """End all workers at once."""
        self._stopped = True
        self._ring()
        self._thread.join(timeout=5)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(None)

    def _supervise(self) -> None:
        try:
            while not self._stopped:
                self._start_missing()
                self._assign()
                events = [self._ear, *(w.pipe for w in self._workers)]
                wait([*events, *(w.process.sentinel for w in self._workers)], _POLL_SECONDS)
                while self._ear.poll():
                    self._ear.recv()
                for worker in list(self._workers):
                    self._look_at(worker)
        except BaseException as error:  # the reader of `results` raises it
            self._results.put(error)
        finally:
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.join(2)
                worker.pipe.close()
            self._bell.close()
            self._ear.close()

    def _start_missing(self) -> None:
        busy = sum(w.item is not None for w in self._workers)
        with self._lock:
            wanted = min(self._size, busy + len(self._waiting))
        while len(self._workers) < wanted:
            try:
                self._workers.append(_start(self._fresh, self._memory))
            except OSError as error:
                if not self._workers:
                    raise SystemRefused(
                        f"no worker process can be started: {error.strerror}",
                        fix="Raise the limits of this shell (ulimit -n, ulimit -u), or free some.",
                    ) from error
                self._size = len(self._workers)  # go on with those that there are
                return

    def _assign(self) -> None:
        for worker in self._workers:
            if not worker.is_ready or worker.item is not None:
                continue
            with self._lock:
                if not self._waiting:
                    return
                worker.number, worker.item = self._waiting.popleft()
            worker.deadline = time.monotonic() + self._stage.timeout(worker.item)
            with contextlib.suppress(OSError):  # it has died: `_look_at` sees that
                worker.pipe.send(worker.item)

    def _look_at(self, worker: _Worker) -> None:
        is_over = not worker.process.is_alive()  # asked first: what it said before is still read
        try:
            while worker.pipe.poll():
                self._hear(worker, worker.pipe.recv())
        except (EOFError, OSError):
            is_over = True
        if is_over:
            self._bury(worker)
        elif time.monotonic() > worker.deadline:
            limit = self._stage.timeout(worker.item)
            self._answer(
                worker,
                ItemError(
                    "timeout", f"it did not finish within {limit:.0f} s; its worker was stopped"
                ),
            )
            self._remove(worker)

    def _hear(self, worker: _Worker, message: object) -> None:
        if isinstance(message, SystemRefused):
            raise message
        if not worker.is_ready:
            worker.is_ready = True
            return
        answer: Answer = message
        answer.item = worker.item
        self._barren = 0
        self._results.put((worker.number, answer))
        worker.number = worker.item = None
        worker.deadline = float("inf")

    def _bury(self, worker: _Worker) -> None:
        """It has died: its item is answered for, and another worker takes its place."""
        self._remove(worker)
        how = ended(worker.process.exitcode)
        if worker.item is not None:
            self._answer(worker, ItemError("worker_died", how))
            return
        self._barren += 1
        if self._barren > _BARREN * self._size:
            raise SystemRefused(
                f"{self._barren} worker processes ended before they had anything to do: {how}",
                fix="Look at memory and limits of this machine (ulimit -a), or use fewer --jobs.",
            )

    def _answer(self, worker: _Worker, error: ItemError) -> None:
        self._results.put((worker.number, Answer(worker.item, None, error)))

    def _remove(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)


def ended(exit_code: int | None) -> str:
    """Return how a process ended, in words."""
    if exit_code is not None and exit_code < 0:
        name = (
            signal.Signals(-exit_code).name
            if -exit_code in set(signal.Signals)
            else f"signal {-exit_code}"
        )
        hint = " (the system may have run out of memory)" if exit_code == -signal.SIGKILL else ""
        return f"the worker process was ended by {name}{hint}"
    return f"the worker process ended with code {exit_code}"


def _start(stage: Stage, memory_bytes: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    try:
        process = context.Process(
            target=_serve, args=(theirs, stage, memory_bytes, os.getpid()), daemon=True
        )
        process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()  # only the worker holds it: the pipe ends with the worker
    return _Worker(process, ours)


def _serve(pipe: Connection, stage: Stage, memory_bytes: int, parent: int) -> None:
    """The life of a worker process."""
    # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many workers as cores: one thread each
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    refused = _limit(memory_bytes) if memory_bytes else None
    pipe.send(refused)
    if refused is not None:
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            item = pipe.recv()
            answer = attempt(stage, item)
            answer.item = None  # the parent has it
            if isinstance(answer.error, SystemRefused):
                answer.detail = str(answer.error)
            try:
                pipe.send(answer)
            except MemoryError:
                pipe.send(Answer(None, None, out_of_memory(), answer.seconds))


def _limit(memory_bytes: int) -> SystemRefused | None:
    """Limit the address space of this process; why it cannot work within the limit, or None."""
    import resource

    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  (no path to speak of)
        has = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    if has + _LEAST_ROOM > memory_bytes:
        return SystemRefused(
            f"--memory {memory_bytes / 2**30:.3g} is too low: a worker has"
            f" {has / 2**30:.2f} GiB of address space before it begins",
            fix=f"Give --memory {2 * has / 2**30 + 1:.0f} or more, or --memory 0 for no limit.",
        )
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    return None


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
