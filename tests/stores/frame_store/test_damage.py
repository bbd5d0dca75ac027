"""Truncated, foreign, random and hostile stores: refused with a message, never a signal."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from pipeline.errors import DataError
from pipeline.stores.frame_store.reader import FrameStore
from tests.stores.frame_store.frame_clips import build_store, images

ROOT = Path(__file__).resolve().parents[3]
VIDEOS = {f"video{n}": images(n, 4) for n in range(8)}
READ_ALL = """
import sys
from pipeline.errors import DataError
from pipeline.stores.frame_store.reader import FrameStore
for path in sys.argv[1:]:
    try:
        store = FrameStore.open(path)
        for video_id in store.ids:
            store.read(video_id)
        print("read", path)
    except (DataError, KeyError) as error:
        print("refused", path, "|", str(error).replace(chr(10), " "))
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return build_store(tmp_path_factory.mktemp("sound"), VIDEOS)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return build_store(tmp_path_factory.mktemp("packed"), VIDEOS, placement="pack")


def read_all(*paths: Path) -> subprocess.CompletedProcess:
    """Read every frame of the stores in another process, which a signal may end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def refusals(result: subprocess.CompletedProcess) -> int:
    return sum(line.startswith("refused") for line in result.stdout.splitlines())


def damaged_copies(sound: Path, folder: Path) -> list[Path]:
    data, chance = sound.read_bytes(), random.Random(1)
    kinds = {
        "empty": b"",
        "random": chance.randbytes(50_000),
        "html": b"<html>404</html>" * 900,
        "zeros": bytes(len(data)),
        "metas-only": data[:8192],
        "one-byte-short": data[:-1],
        "half": data[: len(data) // 2],
        "page-short": data[: len(data) - 4096],
        "not-a-page": data[:5000],
        "shifted": b"\0" + data,
    }
    for name, content in kinds.items():
        (folder / f"{name}.lmdb").write_bytes(content)
    return [folder / f"{name}.lmdb" for name in kinds]


def test_damaged_files_are_refused_and_never_end_the_process(sound, tmp_path):
    paths = damaged_copies(sound, tmp_path)

    result = read_all(*paths)

    assert result.returncode == 0, (result.returncode, result.stderr)
    assert refusals(result) == len(paths), result.stdout
    assert all(str(path) in result.stdout for path in paths)


def test_every_cut_is_refused(sound, tmp_path):
    data = sound.read_bytes()
    paths = [tmp_path / f"{n}.lmdb" for n in range(24)]
    for n, path in enumerate(paths):
        path.write_bytes(data[: len(data) * n // len(paths)])

    result = read_all(*paths)

    assert result.returncode == 0, (result.returncode, result.stderr)
    assert refusals(result) == len(paths)


def test_flipped_bytes_anywhere_are_refused_or_harmless(sound, tmp_path):
    """Free pages may change unnoticed; pictures and structure may not: checksums and page checks
    see to it.
    """
    whole, chance = sound.read_bytes(), random.Random(2)
    expected = {i: FrameStore.open(sound).read(i) for i in VIDEOS}
    paths = [tmp_path / f"{n}.lmdb" for n in range(60)]
    for path in paths:
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 8])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)

    result = read_all(*paths)

    assert result.returncode == 0, (result.returncode, result.stderr)
    kept = [Path(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("read")]
    assert all(
        (FrameStore.open(path).read(i) == expected[i]).all()
        for path in kept
        for i in FrameStore.open(path).ids
    )


def test_file_cut_while_it_is_open_is_noticed(sound, tmp_path):
    path = Path(shutil.copy(sound, tmp_path / "frames.lmdb"))
    store = FrameStore.open(path)
    store.read("video0")
    os.truncate(path, 8192)

    with pytest.raises(DataError, match="became shorter"):
        store.read("video7")


def test_flipped_payload_names_the_video_and_the_store(sound, tmp_path):
    data = bytearray(sound.read_bytes())
    place = data.index(FrameStore.open(sound).bytes("video3")[-400:])
    data[place + 100] ^= 255
    (tmp_path / "frames.lmdb").write_bytes(data)

    store = FrameStore.open(tmp_path)

    assert store.read("video2").shape == (4, 48, 64, 3)
    with pytest.raises(DataError, match="frames.lmdb: video3: the checksum does not match"):
        store.read("video3", [0])


@pytest.mark.parametrize("change", ["cut", "grown", "missing", "flipped"])
def test_damaged_payload_file_is_refused(packed, tmp_path, change):
    shutil.copytree(packed.parent, tmp_path / "s")
    payload = tmp_path / "s" / "frames-0.bin"
    data = payload.read_bytes()
    flipped = bytes([data[0] ^ 1]) + data[1:]
    payload.write_bytes(
        {"cut": data[:-1], "grown": data + b"x", "flipped": flipped, "missing": b""}[change]
    )
    if change == "missing":
        payload.unlink()

    with pytest.raises(DataError, match="frames-0.bin|video0: the checksum does not match"):
        FrameStore.open(tmp_path / "s").read("video0")


def foreign(path: Path, entries: dict[bytes, bytes]) -> Path:
    with (
        lmdb.open(str(path), subdir=False, lock=False) as environment,
        environment.begin(write=True) as txn,
    ):
        for key, data in entries.items():
            txn.put(key, data)
    return path


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {b"0000001": b"a pickled picture"},
        {b"img_001.jpg": b"x"},
        {b"folder/a.mp4": b"x"},
        {b"__meta__": b'{"schema": "other"}', b"__ids__": b"[]"},
        {b"__meta__": b"not json"},
        {b"__meta__": b'{"schema": "tvs1", "placement": "inline"}'},
        {b"__meta__": b'{"schema": "tvs1", "placement": "inline"}', b"__ids__": b"[1]"},
        {
            b"__meta__": b'{"schema": "tvs1", "placement": "pack", "packs": ["x"]}',
            b"__ids__": b"[]",
        },
        {b"v/a": b"x"},
    ],
)
def test_foreign_database_is_refused(tmp_path, entries):
    path = foreign(tmp_path / "other.lmdb", entries)

    with pytest.raises(DataError, match="other.lmdb"):
        FrameStore.open(path)


@pytest.mark.parametrize("data", [b"", b"TVS1", b"TVS1" + bytes(24), b"\xff" * 300])
def test_hostile_values_are_refused(tmp_path, data):
    entries = {
        b"__meta__": b'{"schema": "tvs1", "placement": "inline"}',
        b"__ids__": b'["a"]',
        b"v/a": data,
    }
    store = FrameStore.open(foreign(tmp_path / "f.lmdb", entries))

    with pytest.raises(DataError, match="f.lmdb: a: "):
        store.read("a")


def test_store_larger_than_the_address_space_says_what_to_raise(tmp_path):
    large = build_store(tmp_path, {"a": images(1, 24, 480, 640)}, "raw")
    code = (
        "import resource, sys; from pipeline.stores.frame_store.reader import FrameStore\n"
        "from pipeline.errors import SystemRefused\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 10_000_000, used + 10_000_000))\n"
        "try: FrameStore.open(sys.argv[1])\n"
        "except SystemRefused as error: print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(large)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert "no room to map" in result.stdout, result.stderr
    assert "--memory 0" in result.stdout


def test_published_value_that_is_no_video_names_video_and_store(tmp_path):
    store = FrameStore.open(foreign(tmp_path / "f.lmdb", {b"a.mp4": b"<html>"}))

    with pytest.raises(DataError, match="f.lmdb: a: "):
        store.read("a", [0])


@pytest.mark.parametrize("name", ["missing.lmdb", "folder", "pipe", "/dev/zero"])
def test_what_is_no_file_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DataError, match="No such file|no frame store|not a regular file"):
        FrameStore.open(tmp_path / name)
