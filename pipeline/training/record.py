"""What training writes besides weights: metrics.jsonl (part of the artefact), TensorBoard, and
lines for the user.

metrics.jsonl holds no times, so equal runs give equal bytes; times go to TensorBoard and the log,
below `_state/`.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pipeline import log
from pipeline.errors import DataError

T = TypeVar("T")
_LINE_SECONDS = 30.0
_FIRST_SECONDS = 5.0  # to the first line: that something moves


class MetricsFile:
    """One JSON object per line. Opened at a length that a checkpoint recorded: what was written
    after it is cut off.
    """

    def __init__(self, path: Path, length: int = 0):
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if os.fstat(self._fd).st_size < length:
            os.close(self._fd)
            raise DataError(
                f"shorter than the {length:,} bytes that the checkpoint knows of",
                where=path,
                fix=(
                    "It was changed by hand. Remove the checkpoints folder beside it to start anew."
                ),
            )
        os.ftruncate(self._fd, length)
        os.lseek(self._fd, 0, os.SEEK_END)

    def append(self, values: Mapping[str, object]) -> None:
        """Write one line; floats keep every bit."""
        line = memoryview(json.dumps(values).encode() + b"\n")
        while line:
            line = line[os.write(self._fd, line) :]

    def sync(self) -> int:
        """Make all lines durable and return the file's length."""
        os.fsync(self._fd)
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)


class Board:
    """TensorBoard scalars in `folder`; nothing without one."""

    def __init__(self, folder: Path | None, first_step: int):
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # 1 s to import: only when it is used

            self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=30)

    def add(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        if self._writer:
            self._writer.close()


class RunLog:
    """What the first process of a training run records of it: metrics.jsonl, TensorBoard, lines.

    The other processes only keep time. `open` comes first, once it is known where the run starts.
    """

    def __init__(self, name: str, epochs: int, folder: Path, board: Path | None, is_first: bool):
        self._name, self._epochs = name, epochs
        self._folder, self._board_folder, self._is_first = folder, board, is_first
        self._metrics: MetricsFile | None = None
        self._board: Board | None = None

    @contextlib.contextmanager
    def open(self, metrics_bytes: int, step: int, total_steps: int) -> Iterator[None]:
        """Record from `step` on; metrics.jsonl is cut to the length that a checkpoint knows of."""
        self.clock = Clock(total_steps - step)
        self.console = Console(self._name, self._epochs, self.clock, silent=not self._is_first)
        with contextlib.ExitStack() as stack:
            if self._is_first:
                self._metrics = MetricsFile(self._folder / "metrics.jsonl", metrics_bytes)
                stack.callback(self._metrics.close)
                self._board = Board(self._board_folder, step)
                stack.callback(self._board.close)
                left = total_steps - step
                log.info(f"{self._name:<20} {left:,} steps to go, {self._epochs} epochs in all")
            yield

    def append(self, line: Mapping[str, object]) -> None:
        """Add a line to metrics.jsonl."""
        if self._metrics:
            self._metrics.append(line)

    def plot(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add points to the curves of TensorBoard."""
        if self._board:
            self._board.add(group, values, step)

    def sync(self) -> int:
        """Make metrics.jsonl durable; its length in bytes."""
        return self._metrics.sync() if self._metrics else 0


class Clock:
    """Where the time of training goes: captions per second, share of it spent waiting for data,
    time left.
    """

    def __init__(self, steps_left: int):
        self._start, self._steps_left = time.monotonic(), steps_left
        self._steps = self._all_items = 0
        self._all_waited = self._all_stepping = 0.0
        self.reset()

    def reset(self) -> None:
        self._since, self._waited, self._items = time.monotonic(), 0.0, 0

    def time_waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time that each is waited for counts as waiting for data."""
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            seconds = time.monotonic() - start
            self._waited += seconds
            self._all_waited += seconds
            if batch is None:
                return
            yield batch

    def step(self, items: int, seconds: float) -> None:
        """Record a step: its number of captions and its seconds, waiting included."""
        self._all_stepping += seconds
        self._items += items
        self._all_items += items
        self._steps += 1

    @property
    def rates(self) -> dict[str, float]:
        """captions_per_second and data_share (0 to 1) since the last `reset`."""
        spent = max(time.monotonic() - self._since, 1e-9)
        return {
            "captions_per_second": self._items / spent,
            "data_share": min(1.0, self._waited / spent),
        }

    @property
    def pace(self) -> float:
        """Captions per second since the start, validations and checkpoints included."""
        return self._all_items / max(time.monotonic() - self._start, 1e-9)

    @property
    def data_share(self) -> float:
        """Share of the time in steps, since the start, that was spent waiting for batches, 0 to
        1.
        """
        return min(1.0, self._all_waited / max(self._all_stepping, 1e-9))

    @property
    def left(self) -> str:
        """How long the steps that are left will take at the mean pace so far."""
        seconds = (
            (time.monotonic() - self._start)
            / max(self._steps, 1)
            * (self._steps_left - self._steps)
        )
        if seconds < 90:
            return f"{max(seconds, 0):.0f} s"
        return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Console:
    """Lines for the user: one per epoch, and within long epochs one after 5 s, then every 30 s."""

    def __init__(self, name: str, epochs: int, clock: Clock, silent: bool = False):
        self._name = name
        self._epochs = epochs
        self._clock = clock
        self._silent = silent
        self._last = time.monotonic() - _LINE_SECONDS + _FIRST_SECONDS

    def step(self, epoch: int, position: int, count: int, loss: float) -> None:
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self._line(epoch, f"batch {position:,}/{count:,}  loss {loss:.4g}")

    def epoch(self, epoch: int, loss: float, scores: str) -> None:
        self._line(epoch, f"loss {loss:.4g}" + (f"  {scores}" if scores else ""))

    def _line(self, epoch: int, words: str) -> None:
        if self._silent:
            return
        clock = self._clock
        pace = (
            f"{clock.pace:,.0f} captions/s  waiting for data {clock.data_share:.1%}  left"
            f" {clock.left}"
        )
        log.info(
            f"{self._name:<20} epoch {epoch}/{self._epochs}  {words}  {pace}",
            step=self._name,
            epoch=epoch,
        )
        self._last = time.monotonic()
