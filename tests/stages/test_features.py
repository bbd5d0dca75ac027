"""The features stage, run by the engine on real videos."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.features import resnet
from models.features.tiny_random import TinyRandom
from pipeline.cnn.preprocess import Preprocess, shrink
from pipeline.core.artefact import Artefact
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.plan import dataset_artefact
from pipeline.core.runner import Settings, run
from pipeline.core.state import STATE, Journal, Record, read_manifest, read_records
from pipeline.errors import ConfigError, DataError, ItemError
from pipeline.stages.features import Options, Stage
from pipeline.stores.big_file.reader import BigFile
from pipeline.video.reader import Frame, FrameChoice, decode_clip
from tests import videos
from tests.datasets.layouts import didemo
from tests.stages.store_runs import ONE, frames, killed_runs
from tests.stores.frame_store.frame_clips import images, write_video
from tests.trees import tree

LOOSE = Settings(jobs=1, max_failures=1.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Artefact:
    folder = tmp_path_factory.mktemp("videos")
    for n in range(4):
        write_video(folder / f"video{n}.mp4", images(n, 20 + 7 * n), fps=12)
    return Artefact("video_files", folder)


class Inline(Stage):
    """The stage without worker processes, each of which would import torch again."""

    runs = "inline"


def stage(
    out: Path, source: Artefact | None = None, store: Artefact | None = None, **options: object
) -> Stage:
    options = {"networks": ["tiny-random"]} | options
    return Inline(Options(**options), {"videos": source, "frames": store}, out)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(stage(out, source), settings=ONE)
    return out


def test_rows_are_the_features_of_the_frames_of_the_half_second_rule(source, whole):
    clip = decode_clip(source.path / "video1.mp4", FrameChoice("all"))
    chosen = [n for n in range(27) if n % 12 in (0, 6)]
    seen = np.stack([shrink(clip.images[n], Preprocess("short", 64, 64)) for n in chosen])

    store = BigFile.open(whole)

    assert store.videos["video1"] == [f"video1_{n}" for n in chosen]
    expected = TinyRandom()(torch.from_numpy(seen)).numpy()
    assert np.allclose(store.read_video("video1"), expected, rtol=1e-4, atol=1e-5)


def test_every_so_many_seconds_is_a_choice(source, tmp_path):
    run(stage(tmp_path, source, every=1.0), settings=ONE)

    assert BigFile.open(tmp_path).videos["video3"] == [
        "video3_0",
        "video3_12",
        "video3_24",
        "video3_36",
    ]


def test_of_a_video_that_counts_only_so_long_the_rest_has_no_rows(tmp_path):
    root = didemo(tmp_path / "data")
    write_video(root / "videos" / "4.mp4", images(0, 40), fps=10)
    spec = {"type": "didemo", "root": str(root), "seconds": 2}

    found = stage(tmp_path / "out", dataset_artefact(spec, "video_files"), every=0.5)
    run(found, settings=LOOSE)

    assert BigFile.open(tmp_path / "out").videos["4.mp4"] == [
        "4.mp4_0",
        "4.mp4_5",
        "4.mp4_10",
        "4.mp4_15",
    ]


def test_a_frame_that_fills_several_slots_is_one_row(tmp_path):
    write_video(tmp_path / "in" / "slow.mp4", images(0, 3), fps=1)

    run(stage(tmp_path / "out", Artefact("video_files", tmp_path / "in"), every=0.25), settings=ONE)

    assert BigFile.open(tmp_path / "out").ids == ["slow_0", "slow_1", "slow_2"]


def test_two_workers_write_the_same_bytes_as_none(source, whole, tmp_path):
    run(
        Stage(Options(networks=["tiny-random"]), {"videos": source, "frames": None}, tmp_path),
        jobs=2,
    )

    assert tree(tmp_path) == tree(whole)


def test_kills_and_resumes_leave_the_same_bytes(source, whole, tmp_path):
    chance = random.Random(5)
    delays = [chance.uniform(0, 0.4) for _ in range(6)]

    killed_runs(lambda: stage(tmp_path, source), tmp_path, delays)
    run(stage(tmp_path, source), settings=ONE)

    assert tree(tmp_path) == tree(whole)


def test_a_killed_run_keeps_the_videos_it_had_finished(source, whole, tmp_path):
    first = stage(tmp_path, source)
    _work(first, stop_after=2)
    before = (tmp_path / "feature.bin.partial").read_bytes()

    run(stage(tmp_path, source), settings=ONE)

    assert (tmp_path / "feature.bin").read_bytes().startswith(before)
    assert tree(tmp_path) == tree(whole)


def test_a_damaged_video_is_set_aside_and_the_others_are_kept(source, tmp_path):
    for path in source.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "video1.mp4").write_bytes(b"no video")

    manifest = run(stage(tmp_path / "out", Artefact("video_files", tmp_path)), settings=LOOSE)

    assert manifest["counts"] == {"ok": 3, "damaged": 0, "failed": 1}
    assert list(BigFile.open(tmp_path / "out").videos) == ["video0", "video2", "video3"]


def test_a_video_whose_end_is_garbled_is_kept_as_damaged(tmp_path):
    path = videos.write(tmp_path / "in" / "cut.mp4", videos.Film(frames=75, noise=20))
    videos.garble(path, 0.5, 0.6)

    run(stage(tmp_path / "out", Artefact("video_files", tmp_path / "in")), settings=LOOSE)

    (record,) = read_records(tmp_path / "out" / STATE / "items.jsonl")
    assert (record.status, record.reason) == ("damaged", "decode_errors")


@pytest.mark.parametrize("layout", ["raw", "mp4"])
def test_a_frame_store_is_read_instead_of_videos(tmp_path, layout):
    write_video(tmp_path / "in" / "v.mp4", images(0, 12), fps=3)
    store = frames(Artefact("video_files", tmp_path / "in"), tmp_path / "frames", layout=layout)

    run(stage(tmp_path / "a", store=store), settings=ONE)
    run(stage(tmp_path / "b", Artefact("video_files", tmp_path / "in")), settings=ONE)

    assert tree(tmp_path / "a") == tree(
        tmp_path / "b"
    )  # every value of a raw store is what the decoder gave


def test_batches_across_videos_give_the_rows_of_each_video(source, whole, tmp_path):
    mixed = stage(tmp_path, source, batch=16)
    mixed._in_parent = True  # as with a GPU: workers send pictures, the parent runs full batches
    mixed.flush_items = 3

    _work(mixed)

    ours, theirs = BigFile.open(tmp_path), BigFile.open(whole)
    assert ours.videos == theirs.videos
    assert np.allclose(ours.read(ours.ids), theirs.read(ours.ids), rtol=1e-4, atol=1e-5)


class Broken:
    """A clip whose decoder gives the same frame twice and then fails, or ends."""

    def __init__(self, fails: bool):
        self._fails = fails

    def __iter__(self) -> Iterator[Frame]:
        yield from [Frame(images(0, 1)[0], 0, 0, 1)] * 2
        if self._fails:
            raise ItemError("decode_errors", "the rest is lost")


def test_a_video_that_fails_half_way_leaves_nothing_to_the_next(tmp_path):
    work = stage(tmp_path)
    expected = work._rows("v", work._shrunk(Broken(fails=False)))

    with pytest.raises(ItemError):
        work._rows("w", work._shrunk(Broken(fails=True)))

    assert expected.ids == ["v_0"]  # the same frame again is no second row
    assert np.array_equal(
        work._rows("v", work._shrunk(Broken(fails=False))).values, expected.values
    )


def test_networks_and_preprocessing_are_recorded(whole):
    summary = read_manifest(whole)["summary"]

    (network,) = summary["networks"]
    assert (network["name"], network["dim"], network["preprocess"]["side"]) == (
        "tiny-random",
        407,
        64,
    )
    assert (summary["computed"], summary["torch"]) == ("cpu float32", torch.__version__)


def test_missing_weights_say_which_file_to_download(source, tmp_path):
    with pytest.raises(ConfigError, match=r"resnet152-f82ba261\.pth") as caught:
        run(stage(tmp_path, source, networks=["resnet152"]), settings=ONE)

    assert caught.value.exit_code == 2


def test_a_published_name_with_other_bytes_is_refused(source, tmp_path):
    (tmp_path / "resnet152-f82ba261.pth").write_bytes(b"cut short")

    with pytest.raises(DataError, match="SHA-256 begins with .*, not f82ba261"):
        run(
            stage(
                tmp_path / "out",
                source,
                networks="resnet152",
                weights=[tmp_path / "resnet152-f82ba261.pth"],
            )
        )


def test_a_weight_file_that_is_none_stops_the_run_and_names_the_keys(source, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")

    with pytest.raises(DataError, match=r"missing: bn1\.weight"):
        run(
            stage(
                tmp_path / "out",
                source,
                networks="resnet152",
                weights={"resnet152": tmp_path / "w.pth"},
            ),
            jobs=1,
        )


def test_rows_of_two_devices_are_not_mixed(source, tmp_path):
    first = stage(tmp_path, source)
    _work(
        first, stop_after=2, change=lambda outcome: outcome.facts.update(computed="cuda bfloat16")
    )

    with pytest.raises(ConfigError, match="computed on cuda bfloat16") as caught:
        run(stage(tmp_path, source), settings=ONE)

    assert "--device cuda" in caught.value.fix


@pytest.mark.parametrize(
    "options",
    [
        {"networks": []},
        {"networks": ["resnet152", "resnet152"]},
        {"networks": ["vgg"]},
        {"weights": {"tiny-random": "x"}},
        {"weights": ["a", "b"]},
        {"every": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValidationError):
        Options(**({"networks": ["tiny-random"]} | options))


@pytest.mark.slow
def test_two_real_networks_are_joined_in_order_in_a_worker_with_its_memory_limit(source, tmp_path):
    torch.manual_seed(0)
    names = ["resnext101_32x8d", "resnet152"]
    for name in names:
        torch.save(resnet.build_resnet(name).state_dict(), tmp_path / f"{name}.pth")
    options = {
        "weights": [tmp_path / f"{name}.pth" for name in names],
        "ten_crops": False,
        "every": 5.0,
    }

    inputs = {"videos": source, "frames": None}
    run(Stage(Options(networks=names, **options), inputs, tmp_path / "both"), jobs=1)
    options["weights"] = options["weights"][1:]
    run(Stage(Options(networks="resnet152", **options), inputs, tmp_path / "one"), jobs=1)

    both, one = BigFile.open(tmp_path / "both"), BigFile.open(tmp_path / "one")
    assert (both.dim, one.dim) == (4096, 2048)
    assert (both.read(both.ids)[:, 2048:] == one.read(both.ids)).all()


def _work(
    work: Stage, stop_after: int | None = None, change: Callable = lambda outcome: None
) -> None:
    """Run a stage in this process, item by item as the engine does; `stop_after`: as if killed
    after so many items.
    """
    journal, step, pending = (
        Journal(work.out / STATE / "items.jsonl").open(),
        stage_fingerprint(work),
        [],
    )
    work.open([])
    for item in list(work.items())[:stop_after]:
        outcome = work.process(item)
        change(outcome)
        pending.append(
            Record(item.id, item.key, step, outcome.status, source=item.source, facts=outcome.facts)
        )
        work.commit(item, outcome, pending[-1])
        if len(pending) % work.flush_items == 0:
            work.flush()
    work.flush()
    journal.append(pending)
    journal.close()
    work.close()
    if stop_after is None:
        work.finish(pending)
