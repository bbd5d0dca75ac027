"""The probe stage: what it notes about videos, and when it looks again."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.core.state import Record, read_records
from pipeline.errors import DataError
from pipeline.stages.probe import Stage
from tests.stages.store_runs import ONE, go
from tests.videos import Film, cut, garble, write


def stage(folder: Path, out: Path, **options: object) -> Stage:
    return Stage(Stage.Options(**options), {"videos": Artefact("video_files", folder)}, out)


def notes(out: Path) -> dict[str, Record]:
    return {record.id: record for record in read_records(out / "_state/items.jsonl")}


def test_facts_of_a_video(tmp_path: Path):
    write(tmp_path / "in/film.mp4", Film(frames=50, fps=25, width=160, height=120, rotation=90))

    go(stage(tmp_path / "in", tmp_path / "out"))

    facts = notes(tmp_path / "out")["film"].facts
    assert len(facts.pop("sha256")) == 64
    assert facts == {
        "frames": 50,
        "fps": 25.0,
        "seconds": 2.0,
        "width": 120,
        "height": 160,
        "codec": "h264",
    }


@pytest.mark.parametrize(("damage", "reason"), [(cut, "truncated"), (garble, "decode_errors")])
def test_damage_is_found_by_decoding_everything(damage, reason: str, tmp_path: Path):
    damage(write(tmp_path / "in/film.mp4", Film(frames=80, noise=30)), 0.55)

    go(stage(tmp_path / "in", tmp_path / "full"))
    go(stage(tmp_path / "in", tmp_path / "fast", fast=True))

    assert (notes(tmp_path / "full")["film"].status, notes(tmp_path / "full")["film"].reason) == (
        "damaged",
        reason,
    )
    assert notes(tmp_path / "fast")["film"].status == "ok"


def test_unusable_files_get_their_reason(tmp_path: Path):
    write(tmp_path / "in/film.mp4")
    (tmp_path / "in/empty.mp4").write_bytes(b"")
    (tmp_path / "in/text.mp4").write_text("no film\n" * 30)
    (tmp_path / "in/gone.mp4").symlink_to("nowhere.mp4")

    manifest = go(stage(tmp_path / "in", tmp_path / "out"))

    reasons = {name: record.reason for name, record in notes(tmp_path / "out").items()}
    assert reasons == {"film": "", "empty": "empty", "text": "unreadable", "gone": "io_error"}
    assert manifest["counts"] == {"ok": 1, "damaged": 0, "failed": 3}


def test_fast_takes_digests_only_of_files_of_equal_size(tmp_path: Path):
    first = write(tmp_path / "in/a.mp4", Film(frames=9))
    shutil.copy(first, tmp_path / "in/b.mp4")
    write(tmp_path / "in/c.mp4", Film(frames=30))

    go(stage(tmp_path / "in", tmp_path / "out", fast=True))

    found = {
        name: record.facts.get("sha256", "") for name, record in notes(tmp_path / "out").items()
    }
    assert found["a"] == found["b"] != ""
    assert found["c"] == ""


def test_only_files_that_changed_are_looked_at_again(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / f"in/{name}.mp4", Film(frames=9))
    go(stage(tmp_path / "in", tmp_path / "out"))
    facts = (tmp_path / "in/a.mp4").stat()
    write(tmp_path / "in/a.mp4", Film(frames=9, options={"crf": "40"}))
    os.utime(tmp_path / "in/a.mp4", ns=(facts.st_atime_ns, facts.st_mtime_ns))

    work = stage(tmp_path / "in", tmp_path / "out")
    keys = {item.id: item.key for item in work.items()}

    assert [
        name for name, record in notes(tmp_path / "out").items() if record.key != keys[name]
    ] == ["a"]


def test_two_workers_find_the_same_as_one(tmp_path: Path):
    for n in range(5):
        write(tmp_path / f"in/{n}.mp4", Film(frames=9 + n))
    go(stage(tmp_path / "in", tmp_path / "one"))
    run(stage(tmp_path / "in", tmp_path / "two"), "probe", jobs=2)

    found = [
        {name: (r.status, r.facts) for name, r in notes(tmp_path / out).items()}
        for out in ("one", "two")
    ]

    assert found[0] == found[1]


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder") as caught:
        list(stage(tmp_path / "none", tmp_path / "out").items())

    assert caught.value.fix


def test_every_bad_video_ends_with_its_verdict(shared: Path, tmp_path: Path):
    folder = shared / "data/bad-videos"

    go(stage(folder, tmp_path), ONE)

    found = {
        str(Path(record.source).relative_to(folder)): record for record in notes(tmp_path).values()
    }
    for case in json.loads((folder / "expected.json").read_bytes()):
        record = found[case["file"]]
        if (
            case["reason"] == "extreme_aspect"
        ):  # true of a scaled picture only, and nothing is scaled here
            continue
        status = {"accept": "ok", "accept_damaged": "damaged", "reject": "failed"}[case["verdict"]]
        assert record.status == status, case["file"]
        assert record.reason in (case["reason"] or "").split("|"), case["file"]
        if record.usable:
            assert record.facts["frames"] == case["source_frames"], case["file"]
            # of two streams the larger one is the film; expected.json names the size of the first
            size = [320, 240] if case["file"] == "two_video_streams.mp4" else case["shown_size"]
            assert [record.facts["width"], record.facts["height"]] == size, case["file"]
