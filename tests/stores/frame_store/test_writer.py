"""FrameStoreWriter: nothing flushed is lost by a kill, nothing stands twice, equal input gives
equal content.
"""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from pipeline.core.state import Journal, Record
from pipeline.errors import DataError, ItemError, SystemRefused
from pipeline.stores.frame_store import pack_writer
from pipeline.stores.frame_store import writer as frame_writer
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.frame_store.writer import FrameStoreWriter
from tests.stores.frame_store.frame_clips import images, items, record, value
from tests.trees import tree

ROOT = Path(__file__).resolve().parents[3]
IDS = [f"video{n:02d}" for n in range(12)]
VALUES = {i: value(i, images(n, 3)) for n, i in enumerate(IDS)}
RECORDS = [record(i, 3, len(VALUES[i])) for i in IDS]


def writer(folder: Path, placement: str = "inline") -> FrameStoreWriter:
    return FrameStoreWriter(folder, placement=placement, details={"codec": "jpeg"})


def put(target: FrameStoreWriter, records: list[Record], flush_every: int = 1) -> None:
    for n, entry in enumerate(records, start=1):
        target.put(VALUES[entry.id], entry)
        if n % flush_every == 0:
            target.flush()


def finished(folder: Path, placement: str = "inline") -> dict[str, str]:
    """Content of an undisturbed build."""
    target = writer(folder, placement)
    target.open([])
    put(target, RECORDS, flush_every=5)
    target.flush()
    target.finish(RECORDS)
    return tree(folder)


@pytest.fixture(params=["inline", "pack"])
def placement(request) -> str:
    return request.param


def test_finished_folder_holds_nothing_but_the_store(tmp_path, placement):
    names = set(finished(tmp_path, placement))

    assert names == {"frames.lmdb"} | ({"frames-0.bin"} if placement == "pack" else set())


def test_content_does_not_depend_on_batches_attempts_or_run_times(tmp_path, placement):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(
        target,
        [Record(**{**r.__dict__, "seconds": 9.0, "attempts": 3}) for r in RECORDS],
        flush_every=2,
    )
    target.finish(RECORDS)

    assert tree(tmp_path / "a") == finished(tmp_path / "b", placement)


def test_finish_after_close_works_as_the_engine_calls_it(tmp_path, placement):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(target, RECORDS)
    target.close()
    target.finish(RECORDS)

    assert tree(tmp_path / "a") == finished(tmp_path / "b", placement)


def test_what_was_not_flushed_is_gone_and_what_was_stays(tmp_path, placement):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(target, RECORDS[:5])
    target.put(VALUES[IDS[5]], RECORDS[5])
    target.close()

    again = writer(tmp_path / "a", placement)
    assert again.open(RECORDS[:5], lambda: items(IDS)) == []
    put(again, RECORDS[5:])
    again.finish(RECORDS)
    assert tree(tmp_path / "a") == finished(tmp_path / "b", placement)


def test_lost_journal_lines_come_back_from_the_store(tmp_path, placement):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(target, RECORDS[:8])
    target.close()

    again = writer(tmp_path / "a", placement)
    recovered = again.open(RECORDS[:3], lambda: items(IDS))
    put(again, RECORDS[8:])
    again.finish(RECORDS)
    assert recovered == RECORDS[3:8]
    assert tree(tmp_path / "a") == finished(tmp_path / "b", placement)


def test_recovery_stops_where_an_item_failed_or_changed(tmp_path, placement):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(target, [r for r in RECORDS if r.id != "video04"])
    target.close()

    again = writer(tmp_path / "a", placement)
    recovered = again.open(RECORDS[:3], lambda: items(IDS))
    put(again, RECORDS[4:])
    again.finish(RECORDS)
    assert recovered == RECORDS[3:4]
    assert tree(tmp_path / "a") == finished(tmp_path / "b", placement)


def test_what_the_journal_does_not_know_and_nobody_wants_any_more_is_gone(tmp_path, placement):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(target, RECORDS[:9])
    target.close()

    again = writer(tmp_path / "a", placement)
    again.open(RECORDS[:3], lambda: items(IDS[:3]))
    again.finish(RECORDS[:3])

    fresh = writer(tmp_path / "b", placement)
    fresh.open([])
    put(fresh, RECORDS[:3])
    fresh.finish(RECORDS[:3])
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_entries_of_another_generation_are_not_recovered(tmp_path):
    target = writer(tmp_path)
    target.open([])
    put(target, RECORDS[:4])
    target.close()

    again = writer(tmp_path)
    newer = [Record(**{**r.__dict__, "step": "step-2"}) for r in RECORDS]
    assert again.open(newer[:1], lambda: items(IDS)) == []


def test_no_records_means_a_new_beginning(tmp_path, placement):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(target, RECORDS[3:])
    target.close()

    again = writer(tmp_path / "a", placement)
    assert again.open([], lambda: items(IDS)) == []
    put(again, RECORDS)
    again.finish(RECORDS)
    assert tree(tmp_path / "a") == finished(tmp_path / "b", placement)


def test_records_of_failed_items_need_no_entry(tmp_path):
    failed = Record("video00", "k", "step-1", "failed", reason="empty")
    target = writer(tmp_path)
    target.open([])
    put(target, RECORDS[1:4])
    target.close()

    assert writer(tmp_path).open([failed, *RECORDS[1:4]]) == []


def test_store_that_lost_videos_says_how_to_go_on(tmp_path):
    target = writer(tmp_path)
    target.open([])
    put(target, RECORDS[:2])
    target.close()

    with pytest.raises(DataError, match="lacks 2 videos[^$]*--force"):
        writer(tmp_path).open(RECORDS[:4])


def test_kill_after_the_rename_leaves_nothing_to_do(tmp_path, placement):
    before = finished(tmp_path, placement)

    again = writer(tmp_path, placement)
    assert again.open(RECORDS) == []
    totals = again.finish(RECORDS)
    assert totals == {"videos": 12, "frames": 36, "bytes": sum(map(len, VALUES.values()))}
    assert tree(tmp_path) == before


def test_kill_between_the_last_transaction_and_the_renames(tmp_path, placement, monkeypatch):
    target = writer(tmp_path / "a", placement)
    target.open([])
    put(target, RECORDS)
    with monkeypatch.context() as broken:
        broken.setattr(
            frame_writer, "commit_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            target.finish(RECORDS)

    again = writer(tmp_path / "a", placement)
    assert again.open(RECORDS) == []
    again.finish(RECORDS)
    assert tree(tmp_path / "a") == finished(tmp_path / "b", placement)


def test_new_generation_replaces_the_old_store_and_its_payload(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, "LARGEST_SHARD", 4000)
    finished(tmp_path / "a", "pack")
    finished(tmp_path / "a", "inline")

    assert set(tree(tmp_path / "a")) == {"frames.lmdb"}


def test_key_that_exists_is_an_error_naming_it(tmp_path):
    target = writer(tmp_path)
    target.open([])
    put(target, RECORDS[:1])

    with pytest.raises(DataError, match="already holds 'v/video00'"):
        target.put(b"other", RECORDS[0])


def test_name_too_long_for_a_key_sets_the_item_aside(tmp_path):
    target = FrameStoreWriter(tmp_path, layout="mp4")
    target.open([])

    with pytest.raises(ItemError, match="bad_value"):
        target.put(b"x", record("a", name="n" * 510 + ".mp4"))


def test_map_grows_in_place_when_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_writer, "_SMALLEST_MAP", 1 << 16)
    target = writer(tmp_path / "a")
    target.open([])
    put(target, RECORDS, flush_every=3)
    target.finish(RECORDS)

    assert (tmp_path / "a" / "frames.lmdb").stat().st_size > 1 << 16
    assert tree(tmp_path / "a") == finished(tmp_path / "b")


def test_payload_is_split_into_files_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, "LARGEST_SHARD", 4000)
    target = writer(tmp_path, "pack")
    target.open([])
    put(target, RECORDS[:7])
    target.close()
    again = writer(tmp_path, "pack")
    again.open(RECORDS[:7])
    put(again, RECORDS[7:])
    again.finish(RECORDS)

    store = FrameStore.open(tmp_path)
    sizes = [p.stat().st_size for p in sorted(tmp_path.glob("frames-*.bin"))]
    assert len(sizes) > 2
    assert max(sizes) <= 4000
    assert all(store.bytes(i) == VALUES[i] for i in IDS)


def test_published_layout_holds_nothing_but_names_and_files(tmp_path):
    target = FrameStoreWriter(tmp_path, layout="mp4")
    target.open([])
    target.put(b"first file", record("x/video1", name="video1.mp4"))
    target.put(b"second file", record("video2", name="video2.avi"))
    target.finish([record("x/video1", name="video1.mp4"), record("video2", name="video2.avi")])

    with lmdb.open(str(tmp_path / "frames.lmdb"), subdir=False, readonly=True, lock=False) as found:
        entries = dict(found.begin().cursor())
    store = FrameStore.open(tmp_path)
    assert entries == {b"video1.mp4": b"first file", b"video2.avi": b"second file"}
    assert (store.ids, store.bytes("x/video1")) == (["video1", "video2"], b"first file")


def test_unfinished_store_is_not_opened_for_reading(tmp_path):
    target = writer(tmp_path)
    target.open([])
    put(target, RECORDS[:3])
    target.close()

    with pytest.raises(DataError, match="not finished"):
        FrameStore.open(tmp_path)
    with pytest.raises(DataError, match="not finished"):
        FrameStore.open(tmp_path / "frames.lmdb.partial")


def build_with_journal(folder: Path, placement: str, started: Callable[[], object] = bool) -> None:
    """What a run does: open with the journal's lines, put, flush, then write the line; finish."""
    journal = Journal(folder / "journal").open()
    target = writer(folder / "store", placement)
    journal.append(target.open(list(journal.records.values()), lambda: items(IDS)))
    started()
    for entry in RECORDS[len(journal.records) :]:
        put(target, [entry])
        journal.append([entry])
    target.close()
    target.finish(RECORDS)


def kill_after(seconds: float, folder: Path, placement: str) -> None:
    """Start a build in a process of its own and SIGKILL it `seconds` after it has opened its
    store.
    """
    context = multiprocessing.get_context("fork")
    started = context.Event()
    child = context.Process(target=build_with_journal, args=(folder, placement, started.set))
    child.start()
    started.wait(20)
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def test_killed_builds_end_with_the_content_of_an_undisturbed_one(tmp_path, placement):
    chance = random.Random(6)
    for _ in range(15):
        kill_after(10 ** chance.uniform(-4, -2), tmp_path / "a", placement)
    build_with_journal(tmp_path / "a", placement)

    assert tree(tmp_path / "a" / "store") == finished(tmp_path / "b", placement)


def test_refused_write_names_path_needed_and_free_bytes(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.stores.frame_store.test_writer import *\n"
        "target = writer(Path(sys.argv[1])); target.open([]); put(target, RECORDS[:2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try: [target.put(bytes(40_000), record(f'n{n}')) for n in range(9)]; target.flush()\n"
        "except SystemRefused as error: print(error); sys.exit(error.exit_code)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

    assert result.returncode == SystemRefused.exit_code, result.stderr
    assert "frames.lmdb.partial" in result.stdout
    assert "needed 36" in result.stdout
    assert writer(tmp_path).open(RECORDS[:2]) == []


def test_meta_says_what_the_store_is(tmp_path):
    finished(tmp_path)

    with lmdb.open(str(tmp_path / "frames.lmdb"), subdir=False, readonly=True, lock=False) as found:
        entries = dict(found.begin().cursor())
    meta = json.loads(entries[b"__meta__"])
    assert json.loads(entries[b"__ids__"]) == IDS
    assert (meta["schema"], meta["codec"], meta["placement"]) == ("tvs1", "jpeg", "inline")
    assert meta["statuses"] == {"ok": 12, "damaged": 0}
    assert {key[:2] for key in entries} == {b"__", b"v/"}
