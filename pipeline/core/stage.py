"""Stage, Item, Outcome: what a step of a pipeline is. The engine in `runner` runs them, `state`
remembers them.

A stage is: items in, one folder out, a journal. `process` runs in a worker process (or inline) and
depends on nothing but the stage's options, inputs and the item; `commit` runs in the parent, one
item at a time, in item order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel

from pipeline.core.artefact import Artefact
from pipeline.core.state import Record
from pipeline.errors import ItemError


@dataclass(frozen=True)
class Need:
    """One input of a stage. `kind` is matched with `Stage.makes` of earlier steps.

    many: a list of artefacts (default: every earlier step of that kind), else the latest earlier
    one.
    optional: may be absent. auto=False: never wired unless the step names it (`init: backbone`).
    also: other kinds that a command line may give for it (never wired).
    """

    kind: str
    many: bool = False
    optional: bool = False
    auto: bool = True
    help: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One unit of work. `key`: digest of this item's own inputs; a journal line counts only if it
    matches.

    `payload` is whatever `process` needs (picklable); `source` names the input in messages.
    """

    id: str
    key: str
    payload: object = None
    source: str = ""


class Judged(Protocol):
    """Something that says how sound a video is."""

    status: Literal["ok", "damaged"]
    reason: str
    message: str


@dataclass
class Outcome:
    """What `process` returns. `damaged` is usable, with the reason kept.

    value: goes to `commit` and is then dropped. outputs: {path relative to out: {"bytes",
    "sha256"}} of files that `process` wrote itself (see `state.written`). facts: small JSON values
    kept in the journal (frames, seconds, ...).
    """

    status: Literal["ok", "damaged"] = "ok"
    value: object = None
    outputs: dict[str, dict] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, judged: Judged, value: object, facts: dict) -> "Outcome":
        """Return what `judged`, a reader, a decoded clip or a record, says of a video, and
        `value`.
        """
        return cls(judged.status, value, facts=facts, reason=judged.reason, message=judged.message)


class Stage:
    """Base of every stage. A stage file `pipeline/stages/<name>.py` defines one subclass called
    `Stage`.

    Stages are picklable (options, input artefacts and paths only), so a spawned worker can hold
    one. Module-level imports of a stage file must be cheap (no torch, av, lmdb, nltk ...): `--help`
    imports them.
    """

    needs: ClassVar[dict[str, Need]] = {}
    makes: ClassVar[str] = ""
    version: ClassVar[int] = 1
    # "workers": supervised spawn processes with a time and memory limit; "inline": in the parent,
    # one after another
    runs: ClassVar[Literal["workers", "inline"]] = "inline"
    # under torchrun, "first": rank 0 alone works; "all": every rank calls `process` with the same
    # items
    ranks: ClassVar[Literal["first", "all"]] = "first"
    # "files": each item has its own output files; "single": one store written by `commit` in item
    # order
    store: ClassVar[Literal["files", "single"]] = "files"
    flush_items: ClassVar[int] = 1
    flush_bytes: ClassVar[int] = 64 << 20
    # False: the batches of `flush` are part of the result (files of 64 items), so it is called
    # after exactly `flush_items` items and at the end, never early (bytes, time, Ctrl-C)
    flush_anywhere: ClassVar[bool] = True
    # True: items come from files that may be gone for a moment (a disk that is not mounted), so far
    # fewer items than before are a fault unless --allow-removals
    watches_inputs: ClassVar[bool] = False
    # True: the result is too costly to lose: one that a run would replace is set aside
    keeps: ClassVar[bool] = False
    # True: chance decides what it makes, and `seeds: N` makes it N times (`with_seed`)
    is_seeded: ClassVar[bool] = False
    # options that name an entry of a section of pipelines.yaml; the plan replaces the name by the
    # resolved entry
    references: ClassVar[dict[str, str]] = {}
    # options that do not change the result (batch sizes of inference, devices): not part of the
    # fingerprint
    indifferent: ClassVar[frozenset[str]] = frozenset()

    class Options(BaseModel, extra="forbid"):
        pass

    @classmethod
    def wanted(cls, options: BaseModel) -> dict[str, Need]:
        """Return the needs that these options read; a pipeline wires only those. Default: all."""
        return cls.needs

    @classmethod
    def with_seed(cls, options: BaseModel, place: int) -> tuple[BaseModel, int]:
        """Return the options of the run number `place` of several, and its seed; 0: as they are.

        Only stages that are seeded are asked.
        """
        raise TypeError(f"{cls.__module__} is not seeded")

    @classmethod
    def mistakes(cls, options: BaseModel, given: dict[str, list[str]] | None) -> list[str]:
        """Return what is wrong with options of the right types, one text per mistake, in the words
        that `items` would raise. A pipeline asks every step before the first one runs.

        given: the sources of every need; None where a step before this one is wrong itself, so that
        nothing is said of inputs.
        """
        return []

    def __init__(
        self, options: BaseModel, inputs: dict[str, Artefact | list[Artefact] | None], out: Path
    ):
        self.options, self.inputs, self.out = options, inputs, Path(out)

    def items(self) -> Iterable[Item]:
        """Return all items, in the order in which their results are committed. Ids are unique."""
        raise TypeError(f"{type(self).__name__}.items is not defined")

    def process(self, item: Item) -> Outcome:
        """Do the work of one item. Raise ItemError for a bad item (set aside), OSError to be
        retried.
        """
        raise TypeError(f"{type(self).__name__}.process is not defined")

    def timeout(self, item: Item) -> float:
        """Seconds after which a worker on this item is killed."""
        return 3600.0

    def open(self, records: list[Record]) -> list[Record]:
        """Parent, under the lock, before any work. Bring a single-writer store to exactly `records`
        (the journal's valid lines of this generation, in commit order): create it, truncate it,
        reopen it. Returns records that the store holds durably but the journal lost (LMDB keeps
        them in the same transaction), else [].

        The store is written as `<name>.partial`; `finish` renames it. Records but no partial file
        means that `finish` renamed it before the run was killed: then there is nothing to open.
        """
        return []

    def reuse(self, item: Item, record: Record, folder: Path) -> Outcome:
        """Return the outcome of an item that was finished in the complete store in `folder` (the
        previous generation of this step, or a shard of it), read back instead of processed again.
        For store="files" the engine links the files.
        """
        raise TypeError(f"{type(self).__name__}.reuse is not defined")

    def commit(self, item: Item, outcome: Outcome, record: Record) -> None:
        """Parent, in item order. Put the value into the store. ItemError sets the item aside.

        `record` is the journal line to be (a store with transactions keeps it beside the data).
        """

    def flush(self) -> dict[str, Outcome | ItemError]:
        """Make everything committed so far durable; only then are its journal lines written.

        Called every `flush_items` items or `flush_bytes` bytes and at the end. A stage that
        computes in `commit` (batches across items) returns corrections: {item id: final Outcome, or
        ItemError to set it aside}.
        """
        return {}

    def finish(self, records: list[Record]) -> dict:
        """All items are answered: write index files, rename partial stores. The returned summary
        goes into the manifest.

        `records`: the usable (ok or damaged) records in item order.
        """
        return {}

    def left_out(self, manifest: dict) -> tuple[int, int]:
        """Parts that a finished item had to do without, of how many; more than `max_failures` of
        them end the run as failed items do.
        """
        return 0, 0

    def files(self) -> list[Path]:
        """Files of the finished result that no item names in its outputs; all below `out`."""
        return []

    @classmethod
    def told(cls, out: Path, summary: dict) -> str:
        """Return what a command prints of the finished result; "": its summary, a line per entry.

        out: the folder of the result; its summary is in the manifest.
        """
        return ""

    def input_name(self, item_id: str) -> str:
        """Return what an item stands for in the input; removed inputs are counted by it."""
        return item_id

    @property
    def label(self) -> str:
        """The name of the step's folder, also while a part or a new result of it is made."""
        place = self.out.parent if self.out.name == "_new" else self.out
        return (place.parent.parent if place.parent.name == "_parts" else place).name

    def close(self) -> None:
        """Release what `open` took. Called in every case."""

    def estimate(self) -> str:
        """Return one line for --dry-run about cost (disk, time) when it is known beforehand, else
        "".
        """
        return ""
