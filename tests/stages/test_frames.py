"""The frames stage, run by the engine on real videos."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings
from pipeline.core.state import STATE, read_records
from pipeline.errors import DataError
from pipeline.feeding.inputs import Given, open_frames
from pipeline.recipes.options import FrameOptions
from pipeline.stages.frames import Options, Stage
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.video.reader import FrameChoice, SizeRule, decode_clip
from tests.stages.store_runs import ONE, frames, go, killed_runs, videos
from tests.stores.frame_store.frame_clips import images, write_video
from tests.trees import tree


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Artefact:
    return videos(tmp_path_factory.mktemp("videos"))


def decoded(source: Artefact, name: str) -> np.ndarray:
    return decode_clip(source.path / f"{name}.mp4", FrameChoice("all")).images


@pytest.mark.parametrize("placement", ["inline", "pack"])
def test_raw_layout_holds_every_decoded_frame_exactly(source, tmp_path, placement):
    frames(source, tmp_path, layout="raw", placement=placement)

    store = FrameStore.open(tmp_path)
    assert store.ids == [f"video{n:02d}" for n in range(5)]
    assert all((store.read(i) == decoded(source, i)).all() for i in store.ids)


@pytest.mark.parametrize(("layout", "error"), [("jpeg", 3), ("yuv", 3)])
def test_lossy_layouts_stay_close_to_the_decoded_frames(source, tmp_path, layout, error):
    frames(source, tmp_path, layout=layout)

    got = FrameStore.open(tmp_path).read("video02", [4, 0]).astype(int)
    assert np.abs(got - decoded(source, "video02")[[4, 0]]).mean() < error  # smooth pictures, q90


def test_jpegs_are_four_two_zero(source, tmp_path):
    frames(source, tmp_path)

    data = FrameStore.open(tmp_path).bytes("video00")
    marker = data.index(b"\xff\xc0")
    assert [data[marker + 11 + 3 * n] for n in range(3)] == [0x22, 0x11, 0x11]


def test_mp4_layout_holds_the_files_and_decodes_them(source, tmp_path):
    frames(source, tmp_path, layout="mp4")

    store = FrameStore.open(tmp_path)
    assert store.layout == "mp4"
    assert store.bytes("video01") == (source.path / "video01.mp4").read_bytes()
    assert (store.read("video01", [3, 0]) == decoded(source, "video01")[[3, 0]]).all()


def test_direct_mode_chooses_and_scales_frames_of_the_originals(tmp_path):
    write_video(tmp_path / "in" / "a.mp4", images(1, 30, 96, 128), fps=10)

    frames(
        Artefact("video_files", tmp_path / "in"),
        tmp_path / "s",
        direct=True,
        short_side=48,
        layout="raw",
    )

    expected = decode_clip(tmp_path / "in" / "a.mp4", FrameChoice.at(3), SizeRule("short", 48))
    store = FrameStore.open(tmp_path / "s")
    assert store.info("a").fps == 3
    assert (store.read("a") == expected.images).all()
    assert store.info("a").times_ms.tolist() == expected.times_ms.tolist()
    assert store.read("a").shape == (9, 48, 64, 3)


def test_center_crop_keeps_the_central_square(source, tmp_path):
    frames(source, tmp_path, layout="raw", crop="center")

    assert (
        FrameStore.open(tmp_path).read("video00") == decoded(source, "video00")[:, :, 8:56]
    ).all()


@pytest.mark.parametrize("placement", ["inline", "pack"])
def test_content_does_not_depend_on_the_number_of_workers(source, tmp_path, placement):
    for jobs in (1, 2):
        frames(source, tmp_path / str(jobs), Settings(jobs=jobs), placement=placement)

    assert tree(tmp_path / "1") == tree(tmp_path / "2") != {}


def test_second_run_changes_nothing(source, tmp_path):
    frames(source, tmp_path)
    before = (tmp_path / "frames.lmdb").stat()

    frames(source, tmp_path)

    assert (tmp_path / "frames.lmdb").stat() == before


@pytest.mark.parametrize("placement", ["inline", "pack"])
def test_added_changed_and_removed_videos_are_the_only_ones_redone(tmp_path, placement):
    source = videos(tmp_path / "in", 5)
    frames(source, tmp_path / "a", placement=placement)
    before = {r.id: r.seconds for r in read_records(tmp_path / "a" / STATE / "items.jsonl")}
    write_video(tmp_path / "in" / "video00a.mp4", images(8, 4))
    write_video(tmp_path / "in" / "video03.mp4", images(9, 4))
    (tmp_path / "in" / "video01.mp4").unlink()

    frames(source, tmp_path / "a", placement=placement)

    after = {r.id: r.seconds for r in read_records(tmp_path / "a" / STATE / "items.jsonl")}
    frames(source, tmp_path / "b", placement=placement)
    assert list(after) == ["video00", "video00a", "video02", "video03", "video04"]
    assert {i for i in after if after[i] == before.get(i)} >= {"video00", "video02", "video04"}
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_other_layout_replaces_the_store(source, tmp_path):
    frames(source, tmp_path / "a", placement="pack")
    frames(source, tmp_path / "a", layout="raw")
    frames(source, tmp_path / "b", layout="raw")

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_broken_video_is_set_aside_with_its_reason(tmp_path):
    source = videos(tmp_path / "in", 3)
    (tmp_path / "in" / "video01.mp4").write_bytes(b"<html>not found</html>")
    (tmp_path / "in" / "video02a.mp4").touch()

    frames(source, tmp_path / "s")

    failed = {
        r.id: r.reason for r in read_records(tmp_path / "s" / STATE / "items.jsonl") if not r.usable
    }
    assert failed == {"video01": "unreadable", "video02a": "empty"}
    assert FrameStore.open(tmp_path / "s").ids == ["video00", "video02"]


def test_cut_video_is_kept_as_damaged(tmp_path):
    data = write_video(tmp_path / "whole.mp4", images(1, 60, 96, 128)).read_bytes()
    (tmp_path / "in").mkdir()
    import av

    with (
        av.open(str(tmp_path / "whole.mp4")) as whole,
        av.open(str(tmp_path / "in" / "a.mkv"), "w") as copy,
    ):
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    data = (tmp_path / "in" / "a.mkv").read_bytes()
    (tmp_path / "in" / "a.mkv").write_bytes(data[: len(data) * 2 // 3])

    frames(Artefact("video_files", tmp_path / "in"), tmp_path / "s")

    (found,) = read_records(tmp_path / "s" / STATE / "items.jsonl")
    assert found.status == "damaged"
    assert 0 < FrameStore.open(tmp_path / "s").info("a").frames < 60
    assert FrameStore.open(tmp_path / "s").meta["statuses"] == {"ok": 0, "damaged": 1}


def test_equal_base_names_stop_the_published_layout_before_anything_is_written(tmp_path):
    for folder in "xy":
        write_video(tmp_path / "in" / folder / "a.mp4", images(1, 2))

    with pytest.raises(DataError, match="x/a and y/a"):
        frames(Artefact("video_files", tmp_path / "in"), tmp_path / "s", layout="mp4")
    frames(Artefact("video_files", tmp_path / "in"), tmp_path / "s")

    assert FrameStore.open(tmp_path / "s").ids == ["x/a", "y/a"]


@pytest.mark.parametrize("options", [{"direct": True}, {"crop": "center"}, {"placement": "pack"}])
def test_published_layout_takes_no_option_that_changes_files(options):
    with pytest.raises(ValidationError, match="files as they are"):
        Options(layout="mp4", **options)


@pytest.mark.parametrize("options", [{}, {"placement": "pack"}, {"layout": "mp4"}])
def test_killed_runs_end_with_the_content_of_an_undisturbed_one(tmp_path, options):
    source = videos(tmp_path / "in", 12)
    (tmp_path / "in" / "video05.mp4").write_bytes(b"")
    chance = random.Random(4)

    def stage() -> Stage:
        made = Stage(Options(**options), {"videos": source}, tmp_path / "a")
        type(made).flush_items = 2
        return made

    killed_runs(stage, tmp_path / "a", [chance.uniform(0, 0.12) for _ in range(6)])
    frames(source, tmp_path / "a", ONE, **options)

    frames(source, tmp_path / "b", ONE, **options)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_shards_merge_to_the_whole(tmp_path):
    source = videos(tmp_path / "in", 6)
    for index in range(2):
        frames(source, tmp_path / "a", Settings(jobs=1, shard=(index, 2)), placement="pack")

    parts = sorted((tmp_path / "a" / "_parts").iterdir())
    go(Stage(Options(placement="pack"), {"videos": source}, tmp_path / "a"), reuse_from=parts)

    frames(source, tmp_path / "b", placement="pack")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_estimate_is_known_before_the_run(source, tmp_path):
    assert "5 videos" in Stage(Options(), {"videos": source}, tmp_path / "s").estimate()


def test_real_clip_of_the_published_data(shared: Path, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "video7500.mp4").symlink_to(
        shared / "data" / "videos" / "msrvtt_video7500.mp4"
    )

    frames(Artefact("video_files", tmp_path / "in"), tmp_path / "s", crop="center")

    info = FrameStore.open(tmp_path / "s").info("video7500")
    assert (info.frames, info.height, info.width, info.fps) == (50, 224, 224, 3)
    # 17.9 kB per frame, docs/specs/preprocessing.md, section 5.2
    assert 15 < info.bytes / 50 / 1000 < 21


@pytest.mark.parametrize("placement", ["inline", "pack"])
def test_a_video_removed_between_a_kill_and_the_next_run_leaves_no_trace(placement, tmp_path):
    source = videos(tmp_path / "in")
    options = {"direct": True, "short_side": 48, "placement": placement}

    class Stopped(Stage):
        __module__ = Stage.__module__
        flush_items = 1

        def commit(self, item, outcome, record):
            if item.id == "video04":
                raise KeyboardInterrupt
            super().commit(item, outcome, record)

    with pytest.raises(KeyboardInterrupt):
        go(Stopped(Options(**options), {"videos": source}, tmp_path / "a"))
    (tmp_path / "in/video01.mp4").unlink()
    frames(source, tmp_path / "a", **options)

    frames(source, tmp_path / "b", **options)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert all(b"video01" not in p.read_bytes() for p in (tmp_path / "a").glob("frames*"))


@pytest.mark.parametrize("placement", ["inline", "pack"])
def test_failed_items_can_be_tried_again_after_a_kill(placement, tmp_path):
    source = videos(tmp_path / "in")
    (tmp_path / "in/video01.mp4").write_bytes(b"no video")
    options = {"direct": True, "short_side": 48, "placement": placement}
    frames(source, tmp_path / "a", **options)
    before = tree(tmp_path / "a")
    (tmp_path / "a/_state/manifest.json").unlink()  # as after a kill just before the end

    again = Settings(jobs=1, max_failures=1.0, retry_failed=True)
    frames(source, tmp_path / "a", again, **options)

    assert tree(tmp_path / "a") == before


def test_an_lmdb_of_videos_gives_the_frames_of_its_files(source, tmp_path):
    frames(source, tmp_path / "lmdb", layout="mp4")
    shutil.copy(tmp_path / "lmdb" / "frames.lmdb", tmp_path / "msvd.lmdb")
    videos_in_one_file = Artefact("video_files", tmp_path / "msvd.lmdb")

    frames(videos_in_one_file, tmp_path / "out", layout="raw")

    store = FrameStore.open(tmp_path / "out")
    assert store.ids == [f"video{n:02d}" for n in range(5)]
    assert all((store.read(i) == decoded(source, i)).all() for i in store.ids)
    with pytest.raises(DataError, match="an LMDB of whole videos already"):
        frames(videos_in_one_file, tmp_path / "again", layout="mp4")


def test_a_model_reads_videos_from_an_lmdb(source, tmp_path):
    frames(source, tmp_path / "lmdb", layout="mp4")
    given = Given(videos=Artefact("video_files", tmp_path / "lmdb" / "frames.lmdb"))

    opened = open_frames(given, 32, FrameOptions())

    out = np.empty((2, 32, 32, 3), np.uint8)
    opened.read("video01", np.array([0, 3]), out)
    assert opened.count("video01") == len(decoded(source, "video01"))
    assert out.any()
