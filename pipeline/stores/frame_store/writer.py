"""FrameStoreWriter: builds a frame store so that a kill at any instant loses nothing that was
flushed.

The store grows as `frames.lmdb.partial` (and `frames-<k>.bin.partial`); `finish` renames it. Each
value is put together with its journal line (`j/` + key) in one transaction; `finish` removes those
lines, because they hold run times and equal inputs shall give equal content.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import lmdb

from pipeline.core.files import atomic_path, commit_file
from pipeline.core.stage import Item
from pipeline.core.state import Record, canonical
from pipeline.errors import DataError, ItemError, SystemRefused
from pipeline.stores.frame_store import lmdb_file
from pipeline.stores.frame_store.opened_store import FILE_NAME, IDS, META, Layout, Placement, key_of
from pipeline.stores.frame_store.pack_writer import START_AGAIN, PackWriter, follows
from pipeline.stores.frame_store.reader import FrameStore

_JOURNAL = b"j/"
_BATCH_BYTES, _BATCH_ITEMS = 64 << 20, 256
_SMALLEST_MAP = 1 << 30
_LARGEST_VALUE = (1 << 32) - 4096
_LONGEST_KEY = 511 - len(_JOURNAL)


class FrameStoreWriter:
    """One writer, in one process. Order of calls: open, put ..., flush ..., finish, close.

    layout "mp4" is the published one; there a record's facts hold the key of its video as "name" (a
    base name with its extension). Facts "frames" and "bytes" are summed up. details: what the store
    says about itself (`__meta__`): codec and options. expected_bytes: a guess of the size, from
    which the map starts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layout: Layout = "tvs1",
        placement: Placement = "inline",
        details: dict | None = None,
        expected_bytes: int = 0,
    ):
        self.folder, self.path = folder, folder / FILE_NAME
        self._partial = folder / f"{FILE_NAME}.partial"
        self._layout, self._placement, self._details = layout, placement, details or {}
        self._map_bytes = max(_SMALLEST_MAP, 2 * expected_bytes)
        self._packs = PackWriter(folder) if placement == "pack" else None
        self._environment: lmdb.Environment | None = None
        self._keys: set[bytes] = set()
        self._pending: list[
            tuple[bytes, bytes, bytes]
        ] = []  # key, value or pack entry, journal line
        self._pending_bytes = 0
        self._is_final = False

    def open(
        self, records: list[Record], items: Callable[[], Iterable[Item]] = tuple
    ) -> list[Record]:
        """Bring the partial store to exactly the usable ones of `records`, and return those that
        only the store knows.

        These are in the order of `items` and follow the last of `records` without a gap; everything
        else is dropped. With no records at all the store is begun anew. DataError if it has lost
        something that `records` lists.
        """
        wanted = {self._key(r): r for r in records if r.usable}
        if not self._partial.exists() and wanted:
            self._expect_finished([r for r in records if r.usable])
            return []
        if not wanted:
            self._begin_anew()
        if self._partial.exists():
            lmdb_file.check(self._partial)
        self._open_environment()
        found, lines = self._entries()
        if lost := wanted.keys() - found:
            self._lost(len(lost))
        recovered = (
            _following(records, items(), lines) if found - wanted.keys() - {META, IDS} else []
        )
        if self._packs:
            recovered = self._without_gap([r for r in records if r.usable], recovered)
        kept = wanted.keys() | {self._key(r) for r in recovered}
        self._is_final = META in found and found - {META, IDS} == kept
        if not self._is_final and self._drop(found - kept, lines.keys() - kept):
            self._compact()
        if self._packs:
            self._packs.open([self._get(key) for key in kept], is_final=self._is_final)
        self._keys = set(kept)
        return recovered

    def put(self, value: bytes, record: Record) -> None:
        """Add the video of `record`. It is durable after the next `flush`.

        Raises DataError if the store already has its key, ItemError if the key or the value is too
        long for LMDB.
        """
        assert not self._is_final, "the store was complete"
        key = self._key(record)
        if key in self._keys:
            raise DataError(
                f"the store already holds {key.decode('utf-8', 'replace')!r}",
                where=self.path,
                fix="Rename one of the two.",
            )
        if len(key) > _LONGEST_KEY:
            raise ItemError(
                "bad_value",
                f"its name has {len(key)} bytes; a key of the store has at most {_LONGEST_KEY}",
            )
        if len(value) > _LARGEST_VALUE:
            raise ItemError(
                "too_large",
                f"{len(value):,} bytes; a value of the store holds at most {_LARGEST_VALUE:,}",
            )
        self._keys.add(key)
        stored = self._packs.append(value) if self._packs else value
        self._pending.append((key, stored, record.to_json()))
        self._pending_bytes += len(value)
        if self._pending_bytes >= _BATCH_BYTES or len(self._pending) >= _BATCH_ITEMS:
            self.flush()

    def flush(self) -> None:
        """Commit everything put so far: payload first, then entries and journal lines in one
        transaction.
        """
        if not self._pending:
            return
        if self._packs:
            self._packs.flush()
        batch = self._pending

        def put_batch(txn: lmdb.Transaction) -> None:
            for key, value, line in batch:
                txn.put(key, value)
                txn.put(_JOURNAL + key, line)

        self._transact(put_batch, sum(len(value) + len(line) for _, value, line in batch))
        self._pending, self._pending_bytes = [], 0

    def finish(self, records: list[Record]) -> dict:
        """Write the list of videos (order of `records`), rename the store, return its totals. May
        follow `close`.
        """
        usable = [r for r in records if r.usable]
        totals = {"videos": len(usable)} | {
            name: sum(r.facts.get(name, 0) for r in usable) for name in ("frames", "bytes")
        }
        if self._partial.exists():
            if not self._is_final:
                if self._environment is None:
                    self._open_environment()
                self.flush()
                self._write_last(usable, totals)
            self.close()
            shards = self._packs.rename() if self._packs else 0
            PackWriter.remove_beyond(self.folder, shards)
            commit_file(
                self._partial, self.path
            )  # last: until then the partial file is the one that counts
        return totals

    def close(self) -> None:
        """Let go of the files. What was not flushed is dropped."""
        self._pending, self._pending_bytes = [], 0
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        if self._packs:
            self._packs.close()

    def _key(self, record: Record) -> bytes:
        if self._layout == "mp4":
            return record.facts["name"].encode("utf-8", "surrogateescape")
        return key_of(record.id)

    def _begin_anew(self) -> None:
        for path in (self._partial, self.folder / f"{self._partial.name}-lock"):
            path.unlink(missing_ok=True)
        PackWriter.remove_partial(self.folder)

    def _expect_finished(self, wanted: list[Record]) -> None:
        """Records but no partial file: it was renamed just before the run was killed."""
        store = FrameStore.open(self.path) if self.path.exists() else {}
        missing = [record for record in wanted if record.id not in store]
        if missing or len(store) != len(wanted):
            self._lost(len(missing) or len(store) - len(wanted))

    def _lost(self, count: int) -> None:
        raise DataError(
            f"the store lacks {count:,} videos that the journal lists",
            where=self._partial,
            fix=START_AGAIN,
        )

    def _open_environment(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # without LMDB's own lock file: the step's lock keeps others out
            self._environment = lmdb.open(
                str(self._partial), subdir=False, lock=False, map_size=self._map_bytes
            )
        except lmdb.Error as error:
            raise self._refused(error, self._map_bytes) from error

    def _entries(self) -> tuple[set[bytes], dict[bytes, Record]]:
        """Keys of the values and the special entries, and the journal lines by key."""
        with self._environment.begin() as txn:
            keys = set(txn.cursor().iternext(keys=True, values=False))
            lines = {key[len(_JOURNAL) :]: txn.get(key) for key in keys if key.startswith(_JOURNAL)}
        return {k for k in keys if not k.startswith(_JOURNAL)}, {
            k: Record.from_json(v) for k, v in lines.items()
        }

    def _get(self, key: bytes) -> bytes:
        with self._environment.begin() as txn:
            return txn.get(key)

    def _without_gap(self, records: list[Record], recovered: list[Record]) -> list[Record]:
        """Return those of `recovered` whose payload follows without a gap: the payload of a video
        that was removed must not stay between others.
        """
        end = (0, 0)
        for record in records:
            end = follows(end, self._get(self._key(record))) or end
        for count, record in enumerate(recovered):
            end = follows(end, self._get(self._key(record)))
            if end is None:
                return recovered[:count]
        return recovered

    def _drop(self, values: set[bytes], lines: set[bytes]) -> bool:
        """Remove entries; whether values were among them."""
        doomed = [*values, *(_JOURNAL + key for key in lines)]
        if doomed:
            self._transact(lambda txn: [txn.delete(key) for key in doomed], 0)
        return bool(values)

    def _compact(self) -> None:
        """Copy the store without its free pages: they hold what was removed."""
        with atomic_path(self._partial) as copy:
            self._environment.copy(str(copy), compact=True)
            self._environment.close()
        self._open_environment()

    def _write_last(self, records: list[Record], totals: dict) -> None:
        """The last transaction: without `__meta__` a store is unfinished."""
        meta = {"schema": "tvs1", "placement": self._placement, "totals": totals} | self._details
        meta["statuses"] = {
            status: sum(r.status == status for r in records) for status in ("ok", "damaged")
        }
        if self._packs:
            meta["packs"] = self._packs.sizes()
        lines = [_JOURNAL + key for key in self._keys]

        def put_last(txn: lmdb.Transaction) -> None:
            for line in lines:
                txn.delete(line)
            if self._layout == "tvs1":
                txn.put(IDS, canonical([r.id for r in records]))
                txn.put(META, canonical(meta))

        self._transact(put_last, 128 * len(records))

    def _transact(self, work: Callable[[lmdb.Transaction], object], n_bytes: int) -> None:
        """Run `work` in one transaction. When the map is full nothing of it remains; the map grows,
        it is repeated.
        """
        for _ in range(4):
            try:
                with self._environment.begin(write=True) as txn:
                    work(txn)
                return
            except lmdb.MapFullError:
                self._map_bytes = 2 * max(self._map_bytes, n_bytes)
                self._environment.set_mapsize(self._map_bytes)
            except lmdb.Error as error:
                raise self._refused(error, n_bytes) from error
        raise DataError(
            f"{n_bytes:,} bytes do not fit into the store", where=self._partial, fix=START_AGAIN
        )

    def _refused(self, error: lmdb.Error, needed: int) -> SystemRefused:
        free = shutil.disk_usage(self.folder).free
        return SystemRefused(
            f"LMDB could not write ({error}); needed {needed:,} bytes, {free:,} are free",
            where=self._partial,
            fix=(
                "Free space or choose another folder, then run the same command again: finished"
                " items are kept."
            ),
        )


def _following(
    records: list[Record], items: Iterable[Item], lines: dict[bytes, Record]
) -> list[Record]:
    """Records that only the store holds and that continue the journal in item order.

    The first gap ends them: an item that failed leaves no trace in the store, and the order on disk
    must stay that of the items.
    """
    by_id = {record.id: record for record in lines.values()}
    step, last = records[-1].step, records[-1].id
    rest = iter(items)
    next((item for item in rest if item.id == last), None)
    recovered = []
    for item in rest:
        record = by_id.get(item.id)
        if record is None or record.key != item.key or record.step != step:
            break
        recovered.append(record)
    return recovered
