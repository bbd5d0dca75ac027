"""FrameStore: reading, in one process and in many, in both layouts and both placements."""

import multiprocessing
import pickle
import threading

import lmdb
import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.stores.frame_store import lmdb_file
from pipeline.stores.frame_store.frame_value import read_frames, read_head
from pipeline.stores.frame_store.reader import FrameStore
from tests.stores.frame_store.frame_clips import build_store, images, value, write_video

VIDEOS = {f"video{n}": images(n, 5 + n) for n in range(6)}


@pytest.fixture(scope="module", params=["inline", "pack"])
def store(request, tmp_path_factory):
    return FrameStore.open(build_store(tmp_path_factory.mktemp("s"), VIDEOS, "raw", request.param))


def test_any_order_of_any_frames_is_read_exactly(store):
    order = np.random.default_rng(0).integers(0, 10, 12)

    assert (store.read("video5", order) == VIDEOS["video5"][order]).all()
    assert (store.read("video0") == VIDEOS["video0"]).all()
    assert store.read("video0", []).shape == (0, 48, 64, 3)


def test_frames_are_decoded_into_the_array_that_is_given(store):
    batch = np.zeros((2, 3, 48, 64, 3), np.uint8)

    got = store.read("video1", [4, 4, 0], out=batch[1])

    assert got.base is batch
    assert (batch[1] == VIDEOS["video1"][[4, 4, 0]]).all()
    assert not batch[0].any()


def test_array_of_another_shape_is_refused(store):
    with pytest.raises(DataError, match="48x64"):
        store.read("video1", [0], out=np.zeros((1, 32, 32, 3), np.uint8))


def test_ids_keep_the_order_of_the_build(tmp_path):
    names = ["b", "a/x", "ü", "z" * 500, "a%20"]

    store = FrameStore.open(build_store(tmp_path, dict.fromkeys(names, images(1, 1))))

    assert store.ids == names
    assert all(store.info(name).frames == 1 for name in names)
    assert store.meta["totals"]["videos"] == 5


def test_names_that_are_not_utf8_survive(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    store = FrameStore.open(build_store(tmp_path, {name: images(1, 1)}))

    assert store.ids == [name]
    assert name in store


def test_info_tells_size_rate_and_times(store):
    info = store.info("video2")

    assert (info.frames, info.height, info.width, info.fps, info.codec) == (7, 48, 64, 3, "raw")
    assert info.times_ms.tolist() == [0, 333, 666, 999, 1332, 1665, 1998]


def test_bytes_are_the_value_as_it_was_written(store):
    assert store.bytes("video3") == value("video3", VIDEOS["video3"], "raw")


def test_pack_and_inline_give_the_same_values_and_pictures(tmp_path):
    inline = FrameStore.open(build_store(tmp_path / "i", VIDEOS))
    pack = FrameStore.open(build_store(tmp_path / "p", VIDEOS, placement="pack"))

    assert (inline.placement, pack.placement) == ("inline", "pack")
    assert all(inline.bytes(i) == pack.bytes(i) for i in VIDEOS)
    assert (inline.read("video4", [3, 1]) == pack.read("video4", [3, 1])).all()


def test_subset_equals_a_full_decode(tmp_path):
    store = FrameStore.open(build_store(tmp_path, VIDEOS))

    everything = store.read("video5")

    assert (store.read("video5", [9, 0, 4, 4]) == everything[[9, 0, 4, 4]]).all()


def test_unknown_id_names_the_id_and_the_store(store):
    with pytest.raises(KeyError, match="frames.lmdb.*'video99'"):
        store.read("video99", [0])


@pytest.mark.parametrize("index", [-1, 5, 10**12])
def test_index_out_of_range_names_the_video_and_the_store(store, index):
    with pytest.raises(DataError, match="frames.lmdb: video0.*has 5 frames"):
        store.read("video0", [0, index])


def test_threads_read_at_once(store):
    wrong = []

    def read(seed: int) -> None:
        for n in np.random.default_rng(seed).integers(0, 6, 50):
            if not (store.read(f"video{n}", [4, 0]) == VIDEOS[f"video{n}"][[4, 0]]).all():
                wrong.append(n)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]

    assert wrong == []


def read_in_child(store: FrameStore, results) -> None:
    results.put([int(store.read(i, [0]).sum()) for i in store.ids])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_open_the_store_for_themselves(store, method):
    expected = [int(frames[:1].astype(np.int64).sum()) for frames in VIDEOS.values()]
    store.read("video0", [0])
    context = multiprocessing.get_context(method)
    results = context.Queue()

    children = [context.Process(target=read_in_child, args=(store, results)) for _ in range(2)]
    [c.start() for c in children]

    assert [results.get(timeout=60) for _ in children] == [expected] * 2
    assert (store.read("video0", [0]) == VIDEOS["video0"][:1]).all()


def is_the_same_environment(path, inherited, results) -> None:
    results.put(lmdb_file.open_shared(path) is inherited)


def test_forked_child_does_not_use_the_environment_it_inherits(store):
    environment = lmdb_file.open_shared(store.path)
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    context.Process(target=is_the_same_environment, args=(store.path, environment, results)).start()

    assert results.get(timeout=60) is False
    assert lmdb_file.open_shared(store.path) is environment


def test_store_is_small_when_pickled_and_works_after(store):
    data = pickle.dumps(store)

    assert len(data) < 1000
    assert (pickle.loads(data).read("video1", [2]) == VIDEOS["video1"][[2]]).all()


def test_two_stores_of_one_file_share_its_environment(store):
    again = FrameStore.open(store.path)

    assert (again.read("video1", [0]) == store.read("video1", [0])).all()


def test_replaced_file_is_read_anew(tmp_path):
    first = FrameStore.open(build_store(tmp_path, {"a": images(1, 2)}, "raw"))
    second = FrameStore.open(build_store(tmp_path, {"a": images(2, 2)}, "raw"))

    assert (first.read("a") == images(1, 2)).all()
    assert (second.read("a") == images(2, 2)).all()


def published(folder, names: list[str]) -> dict[str, bytes]:
    """A database as folder2lmdb.py writes it: one transaction, base names, huge map."""
    files = {
        name: write_video(folder / name, images(n, 6)).read_bytes() for n, name in enumerate(names)
    }
    database = lmdb.open(str(folder / "msrvtt.lmdb"), subdir=False, map_size=1 << 36)
    with database, database.begin(write=True) as txn:
        for name, data in files.items():
            txn.put(name.encode(), data)
    return files


def test_published_database_is_recognised_and_read(tmp_path):
    files = published(tmp_path, ["video2.mp4", "video10.mp4"])

    store = FrameStore.open(tmp_path / "msrvtt.lmdb")

    assert (store.layout, store.ids) == ("mp4", ["video10", "video2"])
    assert store.bytes("video2") == files["video2.mp4"]
    everything = store.read("video2")
    assert np.abs(everything.astype(int) - images(0, 6)).mean() < 8
    assert (store.read("video2", [5, 0, 0]) == everything[[5, 0, 0]]).all()
    assert store.info("video2").frames == 6


def test_published_names_that_share_a_stem_keep_their_extension(tmp_path):
    published(tmp_path, ["a.mp4", "a.avi", "b.mp4"])

    store = FrameStore.open(tmp_path)

    assert store.ids == ["a.avi", "a.mp4", "b"]
    assert "somewhere/b" in store


def test_whole_file_as_a_tvs1_value_is_decoded(tmp_path):
    from pipeline.stores.frame_store.frame_value import encode_value

    file = write_video(tmp_path / "a.mp4", images(3, 6)).read_bytes()
    data = encode_value(
        "a",
        [file, *[b""] * 5],
        [333 * n for n in range(6)],
        codec="container",
        height=48,
        width=64,
        fps=3,
    )
    view = memoryview(data)
    head = read_head(lambda s, n: view[s : s + n], len(data))
    out = np.empty((2, 48, 64, 3), np.uint8)
    read_frames(head, lambda s, n: view[s : s + n], [4, 1], out)

    assert np.abs(out.astype(int) - images(3, 6)[[4, 1]]).mean() < 8
