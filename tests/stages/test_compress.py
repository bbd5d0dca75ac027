"""The compress stage on good, odd and hostile videos; both engines; whole runs."""

import json
import math
import os
import shutil
import threading
from fractions import Fraction
from pathlib import Path

import av
import pytest
from pydantic import ValidationError

from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.core.stage import Outcome
from pipeline.core.state import read_manifest
from pipeline.errors import ItemError
from pipeline.stages.compress import Stage
from pipeline.video import reader as video
from pipeline.video.frame_rule import FrameChoice
from tests.stages.store_runs import ONE, go
from tests.videos import Film, cut, garble, shown, write

NAMES = [
    "two words.mp4",
    "-y.mp4",
    "--help.mp4",
    "it's.mp4",
    "$(touch pwned).mp4",
    "a;touch pwned;.mp4",
    "time 12:30:05.mp4",
    "%03d.mp4",
    "back\\slash.mp4",
    "tab\there.mp4",
    "UPPER.MP4",
    "two..dots...mp4",
    "имя файла №1.mp4",
    "x" * 250 + ".mp4",
    os.fsdecode(b"\xff\xfe not utf-8.mp4"),
]


def stage(folder: Path, out: Path, **options: object) -> Stage:
    return Stage(Stage.Options(**options), {"videos": Artefact("video_files", folder)}, out)


def outcomes(folder: Path, out: Path, **options: object) -> dict[str, Outcome | ItemError]:
    """How every video of a folder ends, by its path below it."""
    found, work = {}, stage(folder, out, **options)
    for item in work.items():
        name = str(Path(item.source).relative_to(folder))
        try:
            found[name] = work.process(item)
        except ItemError as error:
            found[name] = error
    return found


def only(path: Path, out: Path, **options: object) -> Outcome | ItemError:
    return outcomes(path.parent, out, **options)[path.name]


def result(outcome: Outcome, out: Path) -> Path:
    (name,) = outcome.outputs
    return out / name


def files(folder: Path) -> list[str]:
    return sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and p.parent.name != "_state"
    )


def test_a_clip_becomes_3_fps_and_224(tmp_path: Path):
    path = write(tmp_path / "in/film.mp4", Film(frames=100, width=320, height=240))

    outcome = only(path, tmp_path / "out")

    assert outcome.facts == {
        "frames": 12,
        "fps": 3.0,
        "seconds": 4.0,
        "width": 298,
        "height": 224,
        "decoded": 100,
    }
    assert shown(result(outcome, tmp_path / "out")) == [
        0,
        8,
        16,
        25,
        33,
        41,
        50,
        58,
        66,
        75,
        83,
        91,
    ]


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("rule", ["grid", "published"])
def test_both_engines_take_the_frames_of_the_rule(engine: str, rule: str, tmp_path: Path):
    path = write(tmp_path / "in/film.mp4", Film(frames=75, fps=30, rotation=90))

    outcome = only(path, tmp_path / "out", engine=engine, frame_rule=rule)

    expected = {
        "grid": [0, 10, 20, 30, 40, 50, 60, 70],
        "published": [0, 1, 8, 18, 28, 38, 48, 58, 68],
    }
    assert (outcome.facts["width"], outcome.facts["height"]) == (224, 298)
    choice = FrameChoice.at(3, rule)
    assert video.decode_clip(path, choice).source_index.tolist() == expected[rule]
    assert outcome.facts["frames"] == len(expected[rule])


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
def test_the_engines_show_the_same_pictures(engine: str, tmp_path: Path):
    path = write(
        tmp_path / "in/film.mp4", Film(frames=75, times=[i * 40 + (i % 3) * 5 for i in range(75)])
    )

    outcome = only(path, tmp_path / "out", engine=engine, fps=5)

    assert (
        shown(result(outcome, tmp_path / "out"))
        == video.decode_clip(path, FrameChoice.at(5)).source_index.tolist()
    )


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
@pytest.mark.parametrize(("damage", "reason"), [(cut, "truncated"), (garble, "decode_errors")])
def test_damage_is_kept_with_its_reason(engine: str, damage, reason: str, tmp_path: Path):
    path = write(tmp_path / "in/film.mp4", Film(frames=80, noise=30))
    damage(path, 0.55)

    outcome = only(path, tmp_path / "out", engine=engine)
    refused = only(path, tmp_path / "strict", engine=engine, strict=True)

    assert (outcome.status, outcome.reason) == ("damaged", reason)
    assert 0 < outcome.facts["decoded"] < 80
    assert shown(result(outcome, tmp_path / "out"))[:3] == [0, 8, 16]
    assert refused.reason == reason
    assert files(tmp_path / "strict") == []


def test_what_cannot_be_used_leaves_nothing(tmp_path: Path):
    folder = tmp_path / "in"
    write(folder / "film.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("404 not found\n" * 20)
    (folder / "script.mp4").write_text(f"ffconcat version 1.0\nfile {folder / 'film.mp4'}\n")
    write(folder / "wide.mp4", Film(frames=5, width=1600, height=32))
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "gone.mp4").symlink_to("nowhere.mp4")

    ends = outcomes(folder, tmp_path / "out")

    reasons = {name: end.reason for name, end in ends.items()}
    assert reasons == {
        "film.mp4": "",
        "empty.mp4": "empty",
        "text.mp4": "unreadable",
        "script.mp4": "forbidden_format",
        "wide.mp4": "extreme_aspect",
        "loop.mp4": "io_error",
        "gone.mp4": "io_error",
    }
    assert files(tmp_path / "out") == ["film.mp4"]


def test_pipes_folders_and_link_loops_are_not_videos(tmp_path: Path):
    folder = tmp_path / "in"
    write(folder / "film.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "folder.mp4" / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.mp4")

    assert list(outcomes(folder, tmp_path / "out")) == ["film.mp4"]


def test_hostile_names_are_only_names(tmp_path: Path):
    folder = tmp_path / "in"
    source = write(tmp_path / "film.mp4", Film(frames=10))
    folder.mkdir()
    for name in NAMES:
        shutil.copy(source, folder / name)

    ends = outcomes(folder, tmp_path / "out")

    assert sorted(ends) == sorted(NAMES)
    assert {end.status for end in ends.values()} == {"ok"}
    assert len(files(tmp_path / "out")) == len(NAMES)
    assert files(folder) == sorted(NAMES)
    assert files(tmp_path) == sorted(
        ["film.mp4", *(f"in/{n}" for n in NAMES), *(f"out/{n}" for n in files(tmp_path / "out"))]
    )


def test_same_names_in_two_folders_stay_apart(tmp_path: Path):
    folder = tmp_path / "in"
    for name in ("a/clip.mp4", "b/clip.mp4", "b/clip.mkv"):
        write(folder / name, Film(frames=10, muxer={}))

    outcomes(folder, tmp_path / "out")

    assert files(tmp_path / "out") == ["a/clip.mp4", "b/clip.mkv.mp4", "b/clip.mp4.mp4"]


def test_a_file_that_keeps_changing_is_set_aside(tmp_path: Path):
    path = write(tmp_path / "in/film.mp4")
    over = threading.Event()

    def touch() -> None:
        while not over.is_set():
            os.utime(path)

    work = stage(path.parent, tmp_path / "out")
    (item,) = work.items()
    toucher = threading.Thread(target=touch)
    toucher.start()
    with pytest.raises(ItemError, match="changed while it was read"):
        work.process(item)
    over.set()
    toucher.join()

    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_pixels": 1000}, "too_large"),
        ({"max_duration": 1.0}, "too_long"),
        ({"max_long_side": 256}, "extreme_aspect"),
        ({"fps": 100, "max_repeat_frames": 60}, ""),
        ({"fps": 200, "max_repeat_frames": 60}, "too_long"),
    ],
)
@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
def test_limits_are_options(options: dict, reason: str, engine: str, tmp_path: Path):
    path = write(tmp_path / "in/film.mp4", Film(frames=50))

    assert only(path, tmp_path / "out", engine=engine, **options).reason == reason


def test_the_time_limit_grows_with_the_file(tmp_path: Path):
    folder = tmp_path / "in"
    write(folder / "short.mp4", Film(frames=5))
    (folder / "zlong.mp4").write_bytes(bytes(12_500 * 60))
    work = stage(folder, tmp_path / "out")

    short, long = (work.timeout(item) for item in work.items())

    assert 600 < short < 610
    assert long == 600 + 2 * 60


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ValidationError, match="grid or published"):
        Stage.Options(engine="ffmpeg", frame_rule="published-vfr")
    with pytest.raises(ValidationError):
        Stage.Options(short_side=225)


def test_quality_options_reach_the_encoder(tmp_path: Path):
    path = write(tmp_path / "in/film.mp4", Film(frames=60, noise=30))

    fine = only(path, tmp_path / "fine", crf=10, gop=1, verify="full")
    coarse = only(path, tmp_path / "coarse", crf=40, preset="medium", short_side=64)

    with av.open(str(result(fine, tmp_path / "fine"))) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    assert coarse.facts["height"] == 64
    assert (
        result(coarse, tmp_path / "coarse").stat().st_size
        < result(fine, tmp_path / "fine").stat().st_size / 10
    )


def test_one_and_two_workers_write_the_same_bytes(tmp_path: Path):
    folder = tmp_path / "in"
    for n in range(6):
        write(folder / f"film{n}.mp4", Film(frames=20 + 7 * n, noise=10))
    cut(folder / "film3.mp4", 0.7)

    go(stage(folder, tmp_path / "one"))
    manifest = run(stage(folder, tmp_path / "two"), "compress", jobs=2)

    assert manifest["summary"]["videos"] == 6
    assert manifest["summary"]["damaged"] == 1
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_second_run_does_nothing_and_a_step_can_follow(tmp_path: Path):
    write(tmp_path / "in/film.mp4", Film(frames=30))
    go(stage(tmp_path / "in", tmp_path / "small"))
    mark = (tmp_path / "small/film.mp4").stat().st_mtime_ns

    go(stage(tmp_path / "in", tmp_path / "small"))
    go(stage(tmp_path / "small", tmp_path / "smaller", short_side=32))

    assert (tmp_path / "small/film.mp4").stat().st_mtime_ns == mark
    assert read_manifest(tmp_path / "smaller")["summary"]["frames"] == 4


def test_all_hostile_names_of_the_test_set(shared: Path, tmp_path: Path):
    case = json.loads((shared / "data/bad-videos/hostile_names.json").read_bytes())
    folder = tmp_path / "in"
    folder.mkdir()
    for name in case["to_names"]:
        shutil.copy(shared / "data/bad-videos" / case["copy"], folder / name)

    manifest = go(stage(folder, tmp_path / "out"), ONE)

    assert manifest["summary"]["videos"] == len(case["to_names"])
    assert not list(tmp_path.rglob("pwned*"))


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
def test_every_bad_video_ends_with_its_verdict(engine: str, shared: Path, tmp_path: Path):
    folder = shared / "data/bad-videos"

    ends = outcomes(folder, tmp_path, engine=engine)

    for case in json.loads((folder / "expected.json").read_bytes()):
        end = ends[case["file"]]
        if case["verdict"] == "reject":
            assert isinstance(end, ItemError), case["file"]
            assert end.reason in case["reason"].split("|"), case["file"]
            continue
        assert end.status == {"accept": "ok", "accept_damaged": "damaged"}[case["verdict"]], case[
            "file"
        ]
        assert end.reason == (case["reason"] or ""), case["file"]
        assert [end.facts["width"], end.facts["height"]] == case["out_size"], case["file"]
        assert end.facts["decoded"] == case["source_frames"], case["file"]
        if engine == "pyav":
            assert end.facts["frames"] == grid_length(case), case["file"]
    accepted = [end for end in ends.values() if isinstance(end, Outcome)]
    assert len(files(tmp_path)) == len(accepted)


def grid_length(case: dict) -> int:
    """Frames of the result by the rule `grid`, from what expected.json says about the source."""
    step = 1 / Fraction(case["source_rate"])
    if case.get("first_pts_s") is None:
        seconds = case["source_frames"] * step
    else:
        seconds = Fraction(str(case["last_pts_s"])) - Fraction(str(case["first_pts_s"])) + step
    return max(1, math.ceil(3 * seconds - Fraction(1, 10**6)))


@pytest.mark.parametrize("rule", ["grid", "published"])
def test_every_real_video_compresses(rule: str, shared: Path, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (shared / "data/videos").glob("*.*"):
        if path.suffix != ".md" and path.stat().st_size < 1 << 20:
            (folder / path.name).symlink_to(path)
    published = {
        "msrvtt_video7500.mp4": 50,
        "vcf_shot00001_1.webm": 17,
        "tc_av1_video.mkv": 17,
        "tc_h265_video.mp4": 5,
    }
    published |= {
        "tc_nasa_13013.mp4": 41,
        "tc_bt709_full_range.mp4": 5,
        "tc_h264_10bits.mp4": 5,
        "tc_h265_10bits.mp4": 5,
    }

    ends = outcomes(folder, tmp_path / "out", frame_rule=rule)

    assert {end.status for end in ends.values()} == {"ok"}
    assert len(ends) == 8
    if rule == "published":
        assert {name: end.facts["frames"] for name, end in ends.items()} == published


@pytest.mark.slow
def test_a_long_lecture_compresses(shared: Path, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "v2d.mp4").symlink_to(shared / "data/videos/v2d_test_video.mp4")

    end = outcomes(folder, tmp_path / "out", frame_rule="published")["v2d.mp4"]

    assert (end.status, end.facts["frames"], end.facts["decoded"]) == ("ok", 369, 3678)


def test_what_is_already_compressed_stays_as_it_is_but_for_the_second_encoding(
    shared: Path, tmp_path: Path
):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "clip.mp4").symlink_to(shared / "data/videos/msrvtt_video7500.mp4")

    end = outcomes(folder, tmp_path / "out")["clip.mp4"]

    before = video.decode_clip(folder / "clip.mp4", FrameChoice("all")).images.astype(int)
    after = video.decode_clip(result(end, tmp_path / "out"), FrameChoice("all")).images
    assert before.shape == after.shape == (50, 224, 298, 3)
    assert abs(before - after).mean() < 4


@pytest.mark.slow
def test_eight_workers_write_the_same_bytes(tmp_path: Path):
    folder = tmp_path / "in"
    for n in range(12):
        write(folder / f"film{n}.mp4", Film(frames=20 + 3 * n, noise=10))

    go(stage(folder, tmp_path / "one"))
    run(stage(folder, tmp_path / "eight"), "compress", jobs=8)

    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "eight" / name).read_bytes()
