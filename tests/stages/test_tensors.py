"""The tensors stage, run by the engine on frame stores, videos and BigFiles."""

import random
import shutil
from collections import namedtuple

import numpy as np
import pytest

from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings
from pipeline.core.state import STATE, read_records
from pipeline.errors import ConfigError, SystemRefused
from pipeline.stages import tensors as tensors_module
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.video.crop import center_crop, resize_short
from tests.stages.store_runs import (
    big_file,
    frames,
    go,
    killed_runs,
    tensors,
    tensors_stage,
    videos,
)
from tests.stores.frame_store.frame_clips import images, write_video
from tests.trees import tree

ROWS = {
    f"video{n:02d}": np.random.default_rng(n).normal(size=(2 + n % 3, 8)).astype(np.float32)
    for n in range(70)
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Artefact:
    folder = tmp_path_factory.mktemp("frames")
    return frames(videos(folder / "in"), folder / "store")


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Artefact:
    return big_file(tmp_path_factory.mktemp("features") / "f", ROWS)


def failures(out) -> dict[str, str]:
    return {r.id: r.reason for r in read_records(out / STATE / "items.jsonl") if not r.usable}


@pytest.mark.parametrize("size", [48, 32, 64])
def test_frames_are_scaled_to_the_short_side_and_cropped(store, tmp_path, size):
    tensors({"store": store}, tmp_path, frames={"size": size})

    cache, source = TensorCache.open(tmp_path / "frames"), FrameStore.open(store.path)
    assert cache.ids == source.ids
    expected = center_crop(resize_short(source.read("video02"), size), size)
    assert cache["video02"].shape == (5, size, size, 3)
    assert (cache["video02"] == expected).all()


def test_center_crop_alone_keeps_pixels_and_adds_black(store, tmp_path):
    tensors({"store": store}, tmp_path, frames={"size": 60, "fit": "center_crop"})

    whole, got = FrameStore.open(store.path).read("video00"), TensorCache.open(tmp_path)["video00"]
    assert (got[:, 6:54] == whole[:, :, 2:62]).all()
    assert not got[:, :6].any()


def test_max_frames_keeps_the_middles_of_equal_segments(store, tmp_path):
    tensors({"store": store}, tmp_path, frames={"size": 48, "max_frames": 3})

    whole, cache = FrameStore.open(store.path), TensorCache.open(tmp_path)
    assert (cache["video04"] == center_crop(whole.read("video04", [1, 3, 5]), 48)).all()
    assert len(cache["video00"]) == 3


@pytest.mark.parametrize("layout", ["raw", "mp4"])
def test_every_way_to_the_same_pictures_gives_the_same_cache(store, tmp_path, layout):
    source = videos(tmp_path / "in", 3)
    tensors(
        {"store": frames(source, tmp_path / "s", layout=layout)},
        tmp_path / "a",
        frames={"size": 48},
    )
    tensors({"videos": source}, tmp_path / "b", frames={"size": 48})

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_published_database_without_a_manifest_is_a_frame_store_too(tmp_path):
    frames(videos(tmp_path / "in", 2), tmp_path / "s", layout="mp4")
    shutil.copy(tmp_path / "s" / "frames.lmdb", tmp_path / "msrvtt.lmdb")

    tensors(
        {"store": Artefact("frame_store", tmp_path / "msrvtt.lmdb")},
        tmp_path / "c",
        frames={"size": 48},
    )

    assert TensorCache.open(tmp_path / "c").ids == ["video00", "video01"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_are_cached_in_row_order(features, tmp_path, dtype):
    tensors({"bigfile": features}, tmp_path, features={"dtype": dtype})

    cache = TensorCache.open(tmp_path / "features")
    assert (cache.kind, cache.dtype, cache.ids) == ("features", dtype, list(ROWS))
    assert all((cache[i] == rows.astype(dtype)).all() for i, rows in ROWS.items())


def test_both_kinds_lie_side_by_side_and_a_kind_no_longer_wanted_goes(store, features, tmp_path):
    inputs = {"store": store, "bigfile": features}
    summary = tensors(inputs, tmp_path, frames={"size": 32}, features={})["summary"]
    assert (summary["frames"]["videos"], summary["features"]["videos"]) == (5, 70)

    tensors(inputs, tmp_path, features={})

    assert {p.name for p in tmp_path.iterdir()} == {"features", STATE}


def test_video_with_nan_or_infinite_features_is_set_aside(tmp_path):
    bad = {i: rows.copy() for i, rows in ROWS.items()}
    bad["video03"][1, 2], bad["video66"][0, 0] = np.nan, 1e6
    source = big_file(tmp_path / "f", bad)

    tensors({"bigfile": source}, tmp_path / "a", features={})
    tensors({"bigfile": source}, tmp_path / "b", features={"dtype": "float16"})

    assert failures(tmp_path / "a") == {"features/video03": "not_finite"}
    assert failures(tmp_path / "b") == {
        "features/video03": "not_finite",
        "features/video66": "not_finite",
    }
    assert "video03" not in TensorCache.open(tmp_path / "a")


def test_damaged_value_costs_its_video_alone(tmp_path):
    store = frames(videos(tmp_path / "in", 4), tmp_path / "s", placement="pack")
    payload = tmp_path / "s" / "frames-0.bin"
    data = bytearray(payload.read_bytes())
    data[data.index(FrameStore.open(store.path).bytes("video02")) + 500] ^= 1
    payload.write_bytes(data)

    tensors({"store": store}, tmp_path / "c", frames={"size": 48})

    assert failures(tmp_path / "c") == {"frames/video02": "bad_value"}
    assert TensorCache.open(tmp_path / "c").ids == ["video00", "video01", "video03"]


def test_broken_video_is_set_aside_with_the_reason_of_the_decoder(tmp_path):
    source = videos(tmp_path / "in", 2)
    (tmp_path / "in" / "video00a.mp4").write_bytes(b"<html>")

    tensors({"videos": source}, tmp_path / "c", frames={"size": 48})

    assert failures(tmp_path / "c") == {"frames/video00a": "unreadable"}


@pytest.mark.parametrize("options", [{}, {"frames": {}}, {"features": {}}])
def test_missing_input_or_kind_is_an_error_of_the_configuration(tmp_path, options):
    with pytest.raises(ConfigError, match="tensors.*(nothing|no step)"):
        tensors({}, tmp_path, **options)


def test_cache_that_does_not_fit_is_refused_with_needed_and_free_bytes(
    store, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(tensors_module.shutil, "disk_usage", lambda _: usage(10**6, 0, 100_000))

    with pytest.raises(SystemRefused, match="172,800 bytes needed, 100,000 free"):
        tensors({"store": store}, tmp_path, frames={"size": 48})


def test_estimate_is_the_size_of_what_is_written(store, features, tmp_path):
    inputs = {"store": store, "bigfile": features}
    summary = tensors(inputs, tmp_path, frames={"size": 64}, features={})["summary"]

    stage = tensors_stage(inputs, tmp_path, frames={"size": 64}, features={})
    assert {kind: part.n_bytes for kind, part in stage._parts.items()} == {
        kind: totals["bytes"] for kind, totals in summary.items()
    }
    assert "frames 0 MB, features 0 MB" in stage.estimate()


def test_bytes_do_not_depend_on_the_number_of_workers(features, tmp_path):
    inputs = {"videos": videos(tmp_path / "in"), "bigfile": features}
    for jobs in (1, 2):
        tensors(inputs, tmp_path / str(jobs), Settings(jobs=jobs), frames={"size": 32}, features={})

    assert tree(tmp_path / "1") == tree(tmp_path / "2") != {}


@pytest.mark.parametrize(("layout", "runs"), [("jpeg", "inline"), ("mp4", "workers")])
def test_only_video_files_are_decoded_in_workers(tmp_path, layout, runs):
    store = frames(videos(tmp_path / "in", 1), tmp_path / "s", layout=layout)

    assert tensors_stage({"store": store}, tmp_path / "c", frames={}).runs == runs


def test_changed_video_is_redone_alone_and_gives_the_bytes_of_a_fresh_build(tmp_path):
    source = videos(tmp_path / "in", 5)
    tensors({"videos": source}, tmp_path / "a", frames={"size": 48})
    before = {r.id: r.seconds for r in read_records(tmp_path / "a" / STATE / "items.jsonl")}
    write_video(tmp_path / "in" / "video01.mp4", images(77, 9))
    write_video(tmp_path / "in" / "video00a.mp4", images(78, 2))

    tensors({"videos": source}, tmp_path / "a", frames={"size": 48})

    after = {r.id: r.seconds for r in read_records(tmp_path / "a" / STATE / "items.jsonl")}
    tensors({"videos": source}, tmp_path / "b", frames={"size": 48})
    assert {i for i in after if after[i] != before.get(i)} <= {"frames/video00a", "frames/video01"}
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_killed_runs_end_with_the_bytes_of_an_undisturbed_one(store, features, tmp_path):
    bad = {i: rows.copy() for i, rows in ROWS.items()}
    bad["video05"][:] = np.inf
    inputs = {"store": store, "bigfile": big_file(tmp_path / "f", bad)}
    options = {"frames": {"size": 32}, "features": {}}
    chance = random.Random(6)

    def stage():
        made = tensors_stage(inputs, tmp_path / "a", **options)
        type(made).flush_items = 9
        return made

    killed_runs(stage, tmp_path / "a", [chance.uniform(0, 0.06) for _ in range(12)])
    tensors(inputs, tmp_path / "a", **options)

    tensors(inputs, tmp_path / "b", **options)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_shards_merge_to_the_whole(features, tmp_path):
    for index in range(3):
        tensors({"bigfile": features}, tmp_path / "a", Settings(1, shard=(index, 3)), features={})
    parts = sorted((tmp_path / "a" / "_parts").iterdir())
    stage = tensors_stage({"bigfile": features}, tmp_path / "a", features={})
    go(stage, reuse_from=parts)

    tensors({"bigfile": features}, tmp_path / "b", features={})
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
