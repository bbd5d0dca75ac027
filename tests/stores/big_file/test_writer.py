"""Writing BigFile folders: the published bytes, nothing lost by a kill, nothing dropped
silently.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError, ItemError
from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.big_file.writer import BigFileWriter, stored_id
from tests.stores.big_file.big_files import frames, values
from tests.trees import tree

ROOT = Path(__file__).resolve().parents[3]
WRITE_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from pipeline.stores.big_file.writer import BigFileWriter
writer = BigFileWriter(Path(sys.argv[1]), 1000)
for n in range(10**9):
    writer.append(f"video{n}", [f"video{n}_{i}" for i in range(7)], np.full((7, 1000), n, np.float32))
"""


def test_files_are_those_of_the_published_format(tmp_path):
    with BigFileWriter(tmp_path, 2) as writer:
        writer.append("v 1", ["v 1_0"], np.array([[1, 2]]))
        writer.append("w", ["w_0", "w_12"], np.array([[3, 4], [5, 6]]))
        writer.finish(writer.videos)

    assert (tmp_path / "feature.bin").read_bytes() == np.arange(1, 7, dtype="<f4").tobytes()
    assert (tmp_path / "shape.txt").read_bytes() == b"3 2"
    assert (tmp_path / "id.txt").read_bytes() == b"v%201_0 w_0 w_12"
    assert (
        tmp_path / "video2frames.txt"
    ).read_bytes() == b"{'v%201': ['v%201_0'], 'w': ['w_0', 'w_12']}"
    assert not list(tmp_path.glob("*.partial"))


def test_rows_written_by_us_equal_the_recorded_folder(golden, tmp_path):
    recorded = BigFile.open(golden / "dual-encoding" / "bigfile" / "from_text")

    with BigFileWriter(tmp_path, recorded.dim) as writer:
        for item_id in recorded.ids:
            writer.append(item_id, [item_id], recorded.read([item_id]))
        writer.finish(recorded.videos)

    assert tree(tmp_path) == tree(recorded.path)


@settings(max_examples=40, deadline=None)  # each writes a store to the disk
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True))
def test_any_ids_come_back_as_they_were(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("store")

    with BigFileWriter(folder, 1) as writer:
        for n, item_id in enumerate(ids):
            writer.append(item_id, [item_id], np.array([[n]]))
        writer.finish({i: [i] for i in ids})

    assert BigFile.open(folder).ids == ids
    assert BigFile.open(folder).videos == {i: [i] for i in ids}


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_stored_ids_stay_distinct_and_hold_no_white_space(a, b):
    assert (stored_id(a) == stored_id(b)) == (a == b)
    assert stored_id(a).encode("iso-8859-1").split() == [stored_id(a).encode("iso-8859-1")]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_group_with_a_value_that_is_not_finite_is_refused_whole(tmp_path, value):
    rows = np.ones((3, 2))
    rows[1, 1] = value

    with BigFileWriter(tmp_path, 2) as writer:
        with pytest.raises(ItemError, match="not_finite: 1 of 3 rows .*'a_1'"):
            writer.append("a", ["a_0", "a_1", "a_2"], rows)
        writer.append("b", ["b_0"], np.ones((1, 2)))
        writer.finish(writer.videos)

    assert BigFile.open(tmp_path).ids == ["b_0"]


@pytest.mark.parametrize("ids", [["a_0", "a_0"], ["x", "a_0"], [""]])
def test_an_id_that_is_taken_or_empty_is_refused(tmp_path, ids):
    with BigFileWriter(tmp_path, 1) as writer:
        writer.append("x", ["x"], np.ones((1, 1)))

        with pytest.raises(ItemError, match="bad_value"):
            writer.append("a", ids, np.ones((len(ids), 1)))


def test_a_resumed_writer_goes_on_after_the_groups_it_keeps(tmp_path):
    whole = frames(tmp_path / "whole", {"a": 2, "b": 3, "c": 1})
    with BigFileWriter(tmp_path / "cut", 3) as writer:
        writer.append("a", ["a_0", "a_1"], values(2, seed=0))
        writer.append("b", ["b_0"], values(1, seed=9))

    with BigFileWriter(tmp_path / "cut", 3, keep=["a"]) as writer:
        writer.append("b", ["b_0", "b_1", "b_2"], values(3, seed=1))
        writer.append("c", ["c_0"], values(1, seed=2))
        writer.finish(writer.videos)

    assert tree(tmp_path / "cut") == tree(whole)


@pytest.mark.parametrize("keep", [["b"], ["a", "c"], ["a", "b", "c"]])
def test_a_writer_that_lost_what_the_journal_knows_says_so(tmp_path, keep):
    with BigFileWriter(tmp_path, 3) as writer:
        writer.append("a", ["a_0"], values(1))
        writer.append("b", ["b_0"], values(1))

    with pytest.raises(DataError, match="does not hold") as caught:
        BigFileWriter(tmp_path, 3, keep=keep)

    assert "--force" in caught.value.fix


def test_kill_9_in_the_middle_of_writing_leaves_every_whole_group(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], cwd=ROOT)
    groups = tmp_path / "rows.partial"
    while child.poll() is None and not (groups.exists() and groups.stat().st_size >= 20_000):
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = [f"video{n}" for n in range(groups.read_bytes().count(b"\n"))]

    with BigFileWriter(tmp_path, 1000, keep=done) as writer:
        writer.finish(writer.videos)

    store = BigFile.open(tmp_path)
    assert all((store.read_video(f"video{n}") == n).all() for n in range(len(done)))
