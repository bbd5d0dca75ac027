"""Two small real stages (files, single store) with which the engine is tested: numbers in, squares
out.
"""

import json
import os
import signal
import time
from pathlib import Path

from pydantic import BaseModel

from pipeline.core.files import atomic_path, disk_name, written
from pipeline.core.stage import Item, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import digest
from pipeline.errors import ItemError


class Options(BaseModel, extra="forbid"):
    count: int = 12
    power: int = 2
    values: dict[str, int] = {}  # item id -> its own input, to change one item
    missing: list[str] = []  # items that fail
    crash: list[str] = []  # items whose worker dies
    hang: list[str] = []  # items that never end
    seconds: float = 0.0
    mend: str = ""  # a file: when it exists, nothing is missing


class _Numbers(Base):
    makes = "numbers"
    runs = "workers"
    indifferent = frozenset({"seconds", "mend", "missing", "crash", "hang", "values", "count"})
    Options = Options

    def items(self) -> list[Item]:
        for n in range(self.options.count):
            name = f"n{n:03d}"
            value = self.options.values.get(name, n)
            yield Item(name, digest([value]), value)

    def timeout(self, item: Item) -> float:
        return 1.0 if item.id in self.options.hang else 60.0

    def work(self, item: Item) -> bytes:
        time.sleep(self.options.seconds)
        if item.id in self.options.crash:
            os.kill(os.getpid(), signal.SIGSEGV)
        if item.id in self.options.hang:
            time.sleep(600)
        if item.id in self.options.missing and not (
            self.options.mend and Path(self.options.mend).exists()
        ):
            raise ItemError("missing", "no such number")
        return json.dumps(item.payload**self.options.power).encode()


class FileStage(_Numbers):
    store = "files"

    def process(self, item: Item) -> Outcome:
        data = self.work(item)
        name = disk_name(item.id, ".json")
        with atomic_path(self.out / name) as path:
            path.write_bytes(data)
        return Outcome(outputs={name: written(self.out / name)})


class StoreStage(_Numbers):
    store = "single"
    flush_items = 3

    @property
    def _partial(self) -> Path:
        return self.out / "numbers.txt.partial"

    def process(self, item: Item) -> Outcome:
        return Outcome(value=self.work(item))

    def open(self, records: list) -> list:
        if records and not self._partial.exists():
            return []
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._partial.touch()
        lines = self._partial.read_bytes().splitlines(keepends=True)
        self._partial.write_bytes(b"".join(lines[: sum(r.usable for r in records)]))
        self._file = self._partial.open("ab")
        return []

    def reuse(self, item: Item, record: object, folder: Path) -> Outcome:
        known = dict(
            line.split(b" ", 1) for line in (folder / "numbers.txt").read_bytes().splitlines()
        )
        return Outcome(value=known[item.id.encode()], facts={"reused": 1})

    def commit(self, item: Item, outcome: Outcome, record: object) -> None:
        self._file.write(item.id.encode() + b" " + outcome.value + b"\n")

    def flush(self) -> dict:
        self._file.flush()
        os.fsync(self._file.fileno())
        return {}

    def finish(self, records: list) -> dict:
        if self._partial.exists():
            self._partial.replace(self.out / "numbers.txt")
        return {"numbers": len(records)}

    def files(self) -> list[Path]:
        return [self.out / "numbers.txt"]

    def close(self) -> None:
        if getattr(self, "_file", None):
            self._file.close()
            self._file = None
