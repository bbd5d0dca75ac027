"""TensorCache and its writer: mapped views, whole or absent parts, never a signal."""

import errno
import json
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.stores.tensor_cache.writer import TensorCacheWriter
from tests.stores.frame_store.frame_clips import images
from tests.trees import tree

ROOT = Path(__file__).resolve().parents[3]
ARRAYS = {f"video{n:03d}": images(n, 2 + n % 5, 16, 16) for n in range(150)}
FEATURES = {i: (a[:, 0, :, 0] / np.float32(7)).astype(np.float32) for i, a in ARRAYS.items()}


def build(
    folder: Path, arrays: dict[str, np.ndarray], flush_every: int = 64, kind: str = "frames"
) -> Path:
    writer = TensorCacheWriter(folder, kind, {"size": 16})
    writer.open({})
    for position, (video_id, array) in enumerate(arrays.items()):
        writer.put(video_id, position, array)
        if (position + 1) % flush_every == 0:
            writer.flush()
    writer.flush()
    writer.close()
    writer.finish()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("cache") / "frames", ARRAYS)


def test_arrays_come_back_exactly_and_in_order(folder):
    cache = TensorCache.open(folder)

    assert (cache.kind, cache.attrs, cache.dtype) == ("frames", {"size": 16}, np.uint8)
    assert cache.ids == list(ARRAYS)
    assert all((cache[i] == a).all() and cache.shape(i) == a.shape for i, a in ARRAYS.items())


def test_array_is_a_read_only_view_of_the_file(folder):
    first, second = (TensorCache.open(folder)["video001"] for _ in range(2))

    assert not first.flags.writeable
    assert not first.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    assert (first == second).all()


def test_parts_are_plain_contiguous_hdf5(folder):
    with h5py.File(folder / "part-00001.h5") as part:
        datasets = [part[name] for name in sorted(part)]
        ids = [d.attrs["id"].decode() for d in datasets]

        assert ids == list(ARRAYS)[64:128]
        assert all(d.chunks is None and d.compression is None for d in datasets)
        assert all(d.id.get_offset() % 4096 == 0 for d in datasets if d.nbytes > 4096)
        assert (datasets[3][...] == ARRAYS["video067"]).all()


def test_gather_copies_rows_straight_into_the_batch(folder):
    cache, index = TensorCache.open(folder), np.array([[1, 0, 1], [4, 4, 0]])
    batch = np.zeros((2, 3, 16, 16, 3), np.uint8)

    got = cache.gather(["video000", "video003"], index, out=batch)

    assert got is batch
    assert (batch[0] == ARRAYS["video000"][[1, 0, 1]]).all()
    assert (cache.gather(["video003"], index[1:])[0] == ARRAYS["video003"][[4, 4, 0]]).all()


@pytest.mark.parametrize("index", [-1, 2])
def test_gather_refuses_frames_that_are_not_there(folder, index):
    with pytest.raises(IndexError, match="video000 has 2 frames"):
        TensorCache.open(folder).gather(["video000"], np.array([[0, index]]))


def test_unknown_id_names_the_cache(folder):
    with pytest.raises(KeyError, match="frames: there is no video 'video999'"):
        TensorCache.open(folder)["video999"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_features_keep_their_type(tmp_path, dtype):
    rows = {i: a.astype(dtype) for i, a in FEATURES.items()}

    cache = TensorCache.open(build(tmp_path / "features", rows, kind="features"))

    assert cache.dtype == dtype
    assert all((cache[i] == a).all() for i, a in rows.items())


def test_bytes_depend_on_items_alone(folder, tmp_path):
    build(tmp_path / "often" / "frames", ARRAYS, flush_every=7)
    build(tmp_path / "rarely" / "frames", ARRAYS, flush_every=1000)

    assert (
        tree(tmp_path / "often" / "frames") == tree(tmp_path / "rarely" / "frames") == tree(folder)
    )


def test_failed_items_leave_gaps_that_move_nothing_else(folder, tmp_path):
    kept = {i: a for i, a in ARRAYS.items() if i not in ("video000", "video063", "video140")}
    writer = TensorCacheWriter(tmp_path / "frames", "frames", {})
    writer.open({})
    for video_id, array in kept.items():
        writer.put(video_id, list(ARRAYS).index(video_id), array)
    writer.flush()
    writer.finish()

    assert (tmp_path / "frames" / "part-00001.h5").read_bytes() == (
        folder / "part-00001.h5"
    ).read_bytes()
    assert TensorCache.open(tmp_path / "frames").ids == list(kept)


@pytest.mark.parametrize("known", [0, 10, 64, 100, 128, 150])
def test_resumed_build_has_the_bytes_of_an_undisturbed_one(folder, tmp_path, known):
    """However much of what was flushed the journal knows."""
    first = TensorCacheWriter(tmp_path / "frames", "frames", {"size": 16})
    first.open({})
    names = list(ARRAYS)
    for position, video_id in enumerate(names[:140] if known < 150 else names):
        first.put(video_id, position, ARRAYS[video_id])
    first.flush()

    again = TensorCacheWriter(tmp_path / "frames", "frames", {"size": 16})
    again.open({name: n for n, name in enumerate(names[:known])})
    for position in range(known, 150):
        again.put(names[position], position, ARRAYS[names[position]])
    again.flush()
    again.finish()
    assert tree(tmp_path / "frames") == tree(folder)


def test_kill_after_the_rename_leaves_nothing_to_do(tmp_path):
    build(tmp_path / "frames", ARRAYS)
    before = tree(tmp_path)

    again = TensorCacheWriter(tmp_path / "frames", "frames", {"size": 16})
    again.open({i: n for n, i in enumerate(ARRAYS)})
    totals = again.finish()
    assert totals == {"videos": 150, "rows": 600, "bytes": 600 * 16 * 16 * 3}
    assert tree(tmp_path) == before


def test_kill_between_removing_the_old_cache_and_renaming_the_new_one(
    folder, tmp_path, monkeypatch
):
    build(tmp_path / "frames", dict(list(ARRAYS.items())[:9]))
    writer = TensorCacheWriter(tmp_path / "frames", "frames", {"size": 16})
    writer.open({})
    for position, (video_id, array) in enumerate(ARRAYS.items()):
        writer.put(video_id, position, array)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.finish()

    again = TensorCacheWriter(tmp_path / "frames", "frames", {"size": 16})
    again.open({i: n for n, i in enumerate(ARRAYS)})
    again.finish()
    assert tree(tmp_path / "frames") == tree(folder)


def test_lost_part_says_how_to_go_on(tmp_path):
    writer = TensorCacheWriter(tmp_path / "frames", "frames", {})
    writer.open({})
    writer.put("a", 0, ARRAYS["video000"])
    writer.flush()

    with pytest.raises(DataError, match="b[^$]*--force"):
        TensorCacheWriter(tmp_path / "frames", "frames", {}).open({"a": 0, "b": 1})


def read_in_child(cache: TensorCache, results) -> None:
    results.put([int(cache[i].astype(np.int64).sum()) for i in cache.ids[:70]])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_read_too(folder, method):
    cache = TensorCache.open(folder)
    expected = [int(cache[i].astype(np.int64).sum()) for i in cache.ids[:70]]
    context = multiprocessing.get_context(method)
    results = context.Queue()

    children = [context.Process(target=read_in_child, args=(cache, results)) for _ in range(2)]
    [c.start() for c in children]

    assert [results.get(timeout=60) for _ in children] == [expected] * 2


def test_cache_is_small_when_pickled_and_works_after(folder):
    data = pickle.dumps(TensorCache.open(folder))

    assert len(data) < 1000
    assert (pickle.loads(data)["video002"] == ARRAYS["video002"]).all()


def test_folder_of_one_cache_opens_it_and_of_two_asks_which(tmp_path):
    build(tmp_path / "frames", dict(list(ARRAYS.items())[:2]))
    assert TensorCache.open(tmp_path).kind == "frames"

    build(tmp_path / "features", dict(list(FEATURES.items())[:2]), kind="features")
    with pytest.raises(DataError, match="features, frames"):
        TensorCache.open(tmp_path)


def test_changed_bytes_are_found_by_check(folder, tmp_path):
    build(tmp_path / "frames", ARRAYS)
    part = tmp_path / "frames" / "part-00002.h5"
    data = bytearray(part.read_bytes())
    data[TensorCache.open(tmp_path)._entry("video130").offset + 5] ^= 1
    part.write_bytes(data)

    TensorCache.open(folder).check()
    with pytest.raises(DataError, match="1 arrays changed: video130"):
        TensorCache.open(tmp_path).check()


READ_ALL = """
import sys
from pipeline.errors import DataError
from pipeline.stores.tensor_cache.reader import TensorCache
for path in sys.argv[1:]:
    try:
        cache = TensorCache.open(path)
        print("read", sum(int(cache[i].sum()) for i in cache.ids))
    except DataError as error:
        print("refused", str(error).replace(chr(10), " "))
"""


def read_all(*paths: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_damaged_parts_and_indexes_are_refused_and_never_end_the_process(folder, tmp_path):
    part, index = (folder / "part-00000.h5").read_bytes(), (folder / "index.json").read_bytes()
    chance, fields = random.Random(1), json.loads(index)
    outside = fields | {"videos": [[i, p, o + 10**9, s, c] for i, p, o, s, c in fields["videos"]]}
    negative = fields | {"videos": [[i, p, -o, s, c] for i, p, o, s, c in fields["videos"]]}
    huge = fields | {
        "videos": [[i, p, o, [2**40, *s[1:]], c] for i, p, o, s, c in fields["videos"]]
    }
    elsewhere = fields | {"parts": [["../../secret", size] for _, size in fields["parts"]]}
    parts = [
        b"",
        part[:-1],
        part[: len(part) // 2],
        chance.randbytes(len(part)),
        bytes(len(part)),
        part + b"x",
    ]
    indexes = [b"", b"[]", b"{}", index[:100], chance.randbytes(500), b"[" * 100_000]
    indexes += [json.dumps(value).encode() for value in (outside, negative, huge, elsewhere)]
    paths = [tmp_path / str(n) for n in range(len(parts) + len(indexes))]
    for n, path in enumerate(paths):
        path.mkdir()
        shutil.copytree(folder, path, dirs_exist_ok=True)
        (path / ("part-00000.h5", "index.json")[n >= len(parts)]).write_bytes((parts + indexes)[n])

    result = read_all(*paths)

    assert result.returncode == 0, (result.returncode, result.stderr)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["refused"] * len(paths)


def test_file_cut_while_it_is_mapped_is_noticed(tmp_path):
    cache = TensorCache.open(build(tmp_path / "frames", ARRAYS))
    assert cache["video000"].sum() > 0
    os.truncate(tmp_path / "frames" / "part-00000.h5", 5000)

    with pytest.raises(DataError, match="part-00000.h5: the file changed its size"):
        cache["video000"]


def test_refused_write_is_an_os_error_of_the_disk(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path\nfrom"
        " tests.stores.tensor_cache.test_tensor_cache import *\nwriter ="
        " TensorCacheWriter(Path(sys.argv[1]) / 'frames', 'frames', {});"
        " writer.open({})\nresource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\ntry:"
        " [writer.put(i, n, np.repeat(a, 50, axis=0)) for n, (i, a) in enumerate(ARRAYS.items())];"
        " writer.flush()\nexcept OSError as error: print(error.errno, error.filename);"
        " writer.close()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{errno.EFBIG} ")
    assert list((tmp_path / "frames.partial").iterdir()) == []
