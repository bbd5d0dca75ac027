"""Reading BigFile folders: published ones, ours, and damaged or hostile ones."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.stores.big_file.reader import BigFile
from tests.stores.big_file.big_files import frames, publish, values


@pytest.fixture
def case(golden):
    return golden / "dual-encoding" / "bigfile"


@pytest.mark.parametrize("name", ["from_text", "latin1"])
def test_recorded_folder_reads_as_recorded(case, name):
    recorded = np.load(case / "outputs.npz")

    store = BigFile.open(case / name)

    assert store.ids == recorded[f"{name}/ids"].tolist()
    assert [store.rows, store.dim] == recorded[f"{name}/shape"].tolist()
    assert (store.read(store.ids) == recorded[f"{name}/matrix"]).all()


def test_recorded_frame_lists_keep_the_order_of_playing(case):
    store = BigFile.open(case / "from_text")

    assert store.videos == json.loads((case / "case.json").read_text())["video2frames"]
    assert (
        store.read_video("clip_one") == store.read(["clip_one_0", "clip_one_12", "clip_one_25"])
    ).all()


def test_read_returns_rows_in_the_order_asked_with_repeats(case):
    recorded = np.load(case / "outputs.npz")
    position = {item_id: row for row, item_id in enumerate(recorded["from_text/ids"].tolist())}
    asked = ["x_0", "clip_one_b_12", "x_0", "clip_one_b_37"]

    rows = BigFile.open(case / "from_text").read(asked)

    assert (rows == recorded["from_text/matrix"][[position[i] for i in asked]]).all()


def test_read_names_all_unknown_ids_at_once(case):
    with pytest.raises(KeyError, match=r"2 of 3 ids .*'unknown_id', 'another'"):
        BigFile.open(case / "from_text").read(["unknown_id", "x_0", "another"])


def test_unknown_video_names_the_store(case):
    with pytest.raises(KeyError, match="no video 'v' in .*from_text"):
        BigFile.open(case / "from_text").read_video("v")


def test_consecutive_rows_of_a_video_are_a_view_that_cannot_be_written(tmp_path):
    rows = BigFile.open(frames(tmp_path, {"a": 2, "b": 3})).read_video("b")

    assert rows.base is not None
    assert not rows.flags.writeable
    assert rows.shape == (3, 3)


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [3, 2, 1, 0], [1], [0, 0], [2, 3]])
def test_rows_that_lie_in_any_order_are_read_in_playing_order(tmp_path, order):
    ids = [f"a_{n}" for n in range(4)]
    store = BigFile.open(publish(tmp_path, ids, values(4), str({"a": [ids[n] for n in order]})))

    assert (store.read_video("a") == values(4)[order]).all()
    assert (store.read([ids[n] for n in order]) == values(4)[order]).all()


def test_without_frame_lists_every_row_is_a_video(tmp_path):
    store = BigFile.open(publish(tmp_path, ["a", "b"], values(2)))

    assert store.videos == {"a": ["a"], "b": ["b"]}
    assert (store.read_video("b") == values(2)[1:]).all()


def test_a_pickled_store_reads_the_same_in_another_process(tmp_path):
    store = BigFile.open(frames(tmp_path, {"a": 2}))

    copy = pickle.loads(pickle.dumps(store))

    assert (copy.read_video("a") == store.read_video("a")).all()


def test_an_empty_store_opens(tmp_path):
    store = BigFile.open(publish(tmp_path, [], np.empty((0, 4), np.float32)))

    assert (store.ids, store.dim, store.read([]).shape) == ([], 4, (0, 4))


def damage(name, data):
    def write(folder):
        (folder / name).write_bytes(data)

    return write


FAULTS = {
    "truncated rows": (damage("feature.bin", bytes(23)), "has 23 bytes, but 2 rows of 3"),
    "too many rows": (damage("feature.bin", bytes(36)), "has 36 bytes"),
    "no shape": (damage("shape.txt", b""), "expected two integers"),
    "negative shape": (damage("shape.txt", b"-2 3"), "expected two integers"),
    "huge shape": (damage("shape.txt", b"999999999999999 999999999999999"), "need"),
    "no dims": (damage("shape.txt", b"2 0"), "at least one value"),
    "too few ids": (damage("id.txt", b"a_0"), "1 ids for 2 rows"),
    "repeated ids": (damage("id.txt", b"a_0 a_0"), "more than once: 'a_0'"),
    "endless ids": (damage("id.txt", b"a" * 20_000), "too many"),
    "frame without row": (
        damage("video2frames.txt", b"{'a': ['a_0', 'a_7']}"),
        "no row in id.txt: 'a_7'",
    ),
    "video without frames": (damage("video2frames.txt", b"{'a': []}"), "have no frames: 'a'"),
    "nested lists": (damage("video2frames.txt", b"[" * 9000), "expected '{'"),
    "names no object": (damage("encoded_ids.json", b"[1]"), "an object of strings"),
}


@pytest.mark.parametrize(("write", "says"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_folder_is_refused_with_the_reason(tmp_path, write, says):
    folder = publish(tmp_path, ["a_0", "a_1"], values(2), "{'a': ['a_0', 'a_1']}")
    write(folder)

    with pytest.raises(DataError, match=says) as caught:
        BigFile.open(folder).read_video("a")

    assert str(folder) in caught.value.where
    assert caught.value.fix


def test_a_missing_file_is_named(tmp_path):
    (publish(tmp_path, ["a"], values(1)) / "feature.bin").unlink()

    with pytest.raises(DataError, match=r"feature\.bin: there is no such file"):
        BigFile.open(tmp_path)


def test_a_file_cut_short_while_open_is_an_error_and_no_signal(tmp_path):
    store = BigFile.open(frames(tmp_path, {"a": 4000}))
    store.read_video("a")
    with (tmp_path / "feature.bin").open("r+b") as file:
        file.truncate(100)

    with pytest.raises(DataError, match="changed its size"):
        store.read_video("a")


def test_hostile_frame_lists_are_never_executed(tmp_path):
    witness = tmp_path / "executed"
    text = f"__import__('os').system('touch {witness}') or {{'a': ['a_0']}}"
    store = BigFile.open(publish(tmp_path, ["a_0"], values(1), text))

    with pytest.raises(DataError, match="not a list of frames"):
        store.read_video("a")

    assert not witness.exists()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(
        ["shape.txt", "id.txt", "video2frames.txt", "encoded_ids.json", "feature.bin"]
    ),
    data=st.binary(max_size=80) | st.text("{}[]'\":,u\\ ab_01\n", max_size=60).map(str.encode),
)
def test_any_bytes_in_any_file_give_rows_or_a_data_error(tmp_path, name, data):
    folder = publish(tmp_path, ["a_0", "a_1"], values(2), "{'a': ['a_0', 'a_1']}")
    (folder / "encoded_ids.json").write_text("{}")
    (folder / name).write_bytes(data)

    try:
        store = BigFile.open(folder)
        rows = [store.read_video(video_id) for video_id in store.videos]
    except DataError as error:
        assert error.what and error.where and error.fix
    else:
        assert all(r.shape[1] == store.dim for r in rows)
