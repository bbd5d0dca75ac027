"""Mutated files through every reader: each is read, or refused with an error of ours.

A few thousand mutations here, ten times as many in `make torture`. Every mutation follows from the
seed in its test, so what failed once fails again.
"""

import contextlib
import os
import pickle
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import arrays, config
from pipeline.checkpoints import archive, safetensors, torchscript
from pipeline.core import adopted, state
from pipeline.datasets.base import open_dataset
from pipeline.errors import ItemError, TvrError
from pipeline.evaluation import results, scored_file
from pipeline.fetching.links import read_links
from pipeline.recipes.recipe import parse
from pipeline.stores.big_file.feature_text import read_rows
from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.text import pickles, tag_files, vector_files, vocab
from tests.datasets.layouts import ALL
from tests.datasets.layouts import write as write_file
from tests.stages.store_runs import frames, tensors, videos
from tests.stores.big_file.big_files import frames as big_file

MUTATIONS = 600 if os.environ.get("TVRKIT_TORTURE") == "full" else 60
SECONDS = 20  # for one mutated file; a hang is a failure too
WORDS = [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n\n", b"-1", b"99999999999999999999", b"nan"]
WORDS += [b'"', b"\\", b"{", b"]", b"\t", b"../", b"\x1b[2J", b"1e400", b"null", b"\xed\xa0\x80"]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four changes: bits, cuts, repeats, moved pieces, words that hurt."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        length = rng.choice([1, 2, 8, 64, 512])
        piece = data[start : start + length]
        kind = rng.randrange(6)
        if kind == 0 and piece:
            flipped = bytes([piece[0] ^ (1 << rng.randrange(8))])
            data = data[:start] + flipped + data[start + 1 :]
        elif kind == 1:
            data = data[:start] + data[start + length :]
        elif kind == 2:
            data = data[:start]
        elif kind == 3:
            data = data[:start] + piece + data[start:]
        elif kind == 4:
            data = data[:start] + rng.choice(WORDS) + data[start:]
        else:
            data = data[:start] + rng.randbytes(length) + data[start + length :]
    return data


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def over(*_: object) -> None:
        raise AssertionError(f"not finished after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def survives(
    folder: Path,
    read: Callable[[Path], object],
    tmp_path: Path,
    seed: int,
    mutations: int = MUTATIONS,
) -> int:
    """Read copies of `folder`, one file of each mutated; returns how many were refused."""
    rng = random.Random(seed)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    refused = 0
    for _ in range(mutations):
        name = rng.choice(names)
        whole = (folder / name).read_bytes()
        (copy / name).write_bytes(mutate(whole, rng))
        try:
            with limited():
                read(copy)
        except (TvrError, ItemError):
            refused += 1
        (copy / name).write_bytes(whole)
    return refused


@pytest.mark.parametrize("kind", ALL)
def test_annotations(kind: str, tmp_path: Path) -> None:
    whole = ALL[kind](tmp_path / "whole")

    survives(
        whole, lambda at: open_dataset({"type": kind, "root": str(at)}).load(), tmp_path, seed=1
    )


TABLES = {
    "captions.csv": "video,caption,split\na.mp4,a dog runs,train\nb.mp4,a cat sits,test\n",
    "captions.tsv": "video\tcaption\na.mp4\ta dog runs\nb.mp4\ta cat sits\n",
    "captions.json": '[{"video": "a.mp4", "caption": ["a dog", "it runs"], "split": "train"}]',
    "captions.jsonl": '{"video": "a.mp4", "caption": "a dog"}\n{"video": "b.mp4", "caption": "b"}',
}


@pytest.mark.parametrize("name", TABLES)
def test_captions_of_ones_own(name: str, tmp_path: Path) -> None:
    whole = write_file(tmp_path / "whole" / name, TABLES[name]).parent
    for video in ("a.mp4", "b.mp4"):
        (whole / video).write_bytes(b"")

    survives(
        whole, lambda at: open_dataset({"type": "folder", "root": str(at)}).load(), tmp_path, seed=2
    )


def test_pipelines_and_recipes(tmp_path: Path) -> None:
    text = (
        "datasets: {own: {type: folder, root: mine}}\n"
        "recipes:\n  small: {extends: tiny_clip, options: {frames: 2, words: 12}, train:\n"
        "    {epochs: 3, optimizer: {name: adamw, lr: 1.0e-3}, params: [{match: bias}]}}\n"
        "pipelines: {own: {dataset: own, steps: {compress: {fps: 3}, train: {recipe: small}}}}\n"
    )
    whole = write_file(tmp_path / "whole" / "own.yaml", text).parent

    def read(at: Path) -> None:
        loaded = config.load(at / "own.yaml")
        if "small" in loaded.recipes:
            parse(loaded.recipe("small"))

    survives(whole, read, tmp_path, seed=3, mutations=MUTATIONS // 6)  # 0.3 s each


def test_yaml(tmp_path: Path) -> None:
    text = (
        "a: [1, 2.5, true, null, 2020-01-01, 0x1f]\nb: &x {c: 'd', e: \"f\"}\ng: {<<: *x, h: 3}\n"
    )
    whole = write_file(tmp_path / "whole" / "own.yaml", text).parent

    survives(
        whole,
        lambda at: config.safe_yaml((at / "own.yaml").read_text(errors="replace"), "own.yaml"),
        tmp_path,
        seed=15,
    )


def whole_file(tmp_path: Path, name: str, data: bytes) -> Path:
    return write_file(tmp_path / "whole" / name, data).parent


def saved(value: object, tmp_path: Path) -> bytes:
    torch.save(value, tmp_path / "saved.pt")
    return (tmp_path / "saved.pt").read_bytes()


@pytest.mark.parametrize("published", [False, True])
def test_torch_archives(published: bool, tmp_path: Path) -> None:
    value = {"model": {"a.weight": torch.randn(3, 4)}, "epoch": 3, "opt": {"lr": 0.1, "w": [1, 2]}}
    whole = whole_file(tmp_path, "x.pt", saved(value, tmp_path))

    survives(whole, lambda at: archive.read_archive(at / "x.pt", published), tmp_path, seed=4)


def test_older_torch_files(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    whole = whole_file(tmp_path, "x.pt", (tmp_path / "old.pt").read_bytes())

    survives(whole, lambda at: archive.read_archive(at / "x.pt", True), tmp_path, seed=5)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_programs(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), str(tmp_path / "program.pt"))
    whole = whole_file(tmp_path, "x.pt", (tmp_path / "program.pt").read_bytes())

    survives(whole, lambda at: torchscript.read(at / "x.pt"), tmp_path, seed=6)


def test_safetensors(tmp_path: Path) -> None:
    table = b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
    data = len(table).to_bytes(8, "little") + table + np.ones(4, np.float32).tobytes()
    whole = whole_file(tmp_path, "x.safetensors", data)

    assert survives(whole, lambda at: safetensors.read(at / "x.safetensors"), tmp_path, seed=7)


def test_arrays_of_numpy(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    np.save(whole / "a.npy", np.arange(12.0).reshape(3, 4))
    np.savez(whole / "b.npz", sim=np.eye(4), owner=np.arange(4))
    np.savez_compressed(whole / "c.npz", sim=np.eye(4))

    def read(at: Path) -> None:
        for name in ("a.npy", "b.npz", "c.npz"):
            with contextlib.suppress(TvrError):
                scored_file.read_scored(at / name)
        np.array(arrays.read_npy(at / "a.npy"))
        arrays.read_npz(at / "b.npz")
        arrays.read_npz(at / "c.npz")

    assert survives(whole, read, tmp_path, seed=8) > MUTATIONS // 4


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles(protocol: int, tmp_path: Path) -> None:
    value = {"a": [["a", "dog"], ["runs"]], ("b", 1): {1.5, 2}, "word2idx": {"<start>": 1}}
    whole = whole_file(tmp_path, "x.pkl", pickle.dumps(value, protocol))

    def read(at: Path) -> None:
        with contextlib.suppress(TvrError):
            vocab.load(at / "x.pkl")
        pickles.read(at / "x.pkl", shells=("Vocabulary",), arrays=True)

    assert survives(whole, read, tmp_path, seed=9) > MUTATIONS // 4


def test_words_tags_and_vectors(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    write_file(whole / "vocab.json", ["<pad>", "<start>", "<end>", "<unk>", "a", "dog"])
    write_file(whole / "words.txt", "a\ndog\nruns\n")
    write_file(whole / "vectors.txt", "2 3\na 1 2 3\ndog 4 5 6\n")
    write_file(whole / "vectors.bin", b"1 2\na " + np.ones(2, np.float32).tobytes() + b"\n")
    write_file(whole / "tags" / "vocab.txt", "dog:3\ncat:2\n")
    write_file(whole / "features.txt", "a 1 2 3\nb 4 5 6\n")
    write_file(whole / "links.txt", "https://host/a.mp4 " + "0" * 64 + "\nhttp://host/b.mp4\n")

    def read(at: Path) -> None:
        readers: list[Callable[[], object]] = [
            lambda: vocab.load(at / "vocab.json"),
            lambda: vocab.load(at / "words.txt"),
            lambda: vector_files.read(at / "vectors.txt", ["a"]),
            lambda: vector_files.read(at / "vectors.bin", ["a"]),
            lambda: tag_files.read_vocabulary(at / "tags" / "vocab.txt"),
            lambda: list(read_rows(at / "features.txt")),
            lambda: read_links([at / "links.txt"]),
        ]
        for one in readers:
            with contextlib.suppress(TvrError):
                one()

    survives(whole, read, tmp_path, seed=10)


def test_big_files(tmp_path: Path) -> None:
    whole = big_file(tmp_path / "whole", {"a": 2, "b": 3})

    def read(at: Path) -> None:
        store = BigFile.open(at)
        for video_id in store.videos:
            store.read_video(video_id)

    assert survives(whole, read, tmp_path, seed=11) > MUTATIONS // 4


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    source = frames(videos(folder / "raw", 2), folder / "frames")
    tensors({"store": source}, folder / "tensors", frames={"size": 48})
    return folder


def test_frame_stores(stores: Path, tmp_path: Path) -> None:
    def read(at: Path) -> None:
        store = FrameStore.open(at)
        for video_id in list(store.ids)[:4]:
            store.read(video_id)

    survives(stores / "frames", read, tmp_path, seed=12)


def test_tensor_caches(stores: Path, tmp_path: Path) -> None:
    def read(at: Path) -> None:
        cache = TensorCache.open(at)
        for video_id in list(cache.ids)[:4]:
            np.array(cache[video_id])

    survives(stores / "tensors", read, tmp_path, seed=13)


def test_state_files_and_results(stores: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(stores / "frames" / "_state", whole / "_state")
    write_file(
        whole / adopted.POINTER, {"path": "/x", "format": "bigfile", "digest": "", "bytes": {}}
    )
    write_file(whole / results.METRICS, {"results": {"none": {}}, "split": "test"})
    write_file(
        whole / results.GALLERY,
        {
            "checkpoint": "0",
            "split": "test",
            "video_ids": ["a"],
            "caption_ids": ["a#0"],
            "texts": ["a dog"],
            "row_of_text": [0],
        },
    )

    def read(at: Path) -> None:
        state.usable_records(at)
        state.Journal(at / "_state" / "items.jsonl").load()
        for one in (adopted.resolve, results.read_metrics, results.read_gallery):
            with contextlib.suppress(TvrError):
                one(at)

    survives(whole, read, tmp_path, seed=14)
