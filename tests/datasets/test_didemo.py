"""DiDeMo: paragraphs in order of the JSON, names with odd endings, counts on the real files."""

from pathlib import Path

import pytest

from pipeline.core import runner
from pipeline.core.plan import dataset_artefact
from pipeline.core.state import read_records
from pipeline.core.todo import Settings
from pipeline.datasets.base import open_dataset
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import DataError
from pipeline.stages.compress import Options, Stage
from tests.datasets.layouts import didemo, write
from tests.videos import Film
from tests.videos import write as film


def load(root: Path, **options: object):
    return open_dataset({"type": "didemo", "root": str(root), **options}).load()


def test_paragraphs_stand_in_order_of_first_appearance_and_only_listed_videos_count(
    tmp_path: Path,
) -> None:
    annotations = load(didemo(tmp_path))

    assert annotations.split("train").video_ids == ["2@N02_b.", "1@N01_a.3gp"]
    assert annotations.texts("train")[0].text == "one of 2@N02_b. two of 2@N02_b."
    assert "other.mp4" not in annotations.videos


def test_segment_is_the_first_31_seconds(tmp_path: Path) -> None:
    video = load(didemo(tmp_path)).videos["4.mp4"]

    assert (video.start, video.end) == (0.0, 31.0)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("exact", {"1@N01_a.3gp", "2@N02_b."}),
        ("either", {"1@N01_a.3gp", "2@N02_b.", "3@N03_c.mov"}),
        ("reencoded", {"3@N03_c.mov", "4.mp4"}),
    ],
)
def test_files_are_called_as_each_system_expects(
    tmp_path: Path, names: str, found: set[str]
) -> None:
    didemo(tmp_path)
    for file in ("1@N01_a.3gp", "2@N02_b.", "3@N03_c.mov.mp4", "4.mp4.mkv"):
        write(tmp_path / "videos" / file, "x")

    assert {v.id for v in load(tmp_path, file_names=names).videos.values() if v.path} == found


def test_descriptions_of_another_split_are_refused(tmp_path: Path) -> None:
    write(didemo(tmp_path) / "train_data.json", (tmp_path / "val_data.json").read_text())

    with pytest.raises(
        DataError, match=r"2 x id .* another data set\?\): '1@N01_a.3gp' \(train_list.txt\)"
    ):
        load(tmp_path)


def test_repeated_annotation_is_refused(tmp_path: Path) -> None:
    entry = {"annotation_id": 7, "video": "4.mp4", "description": "a"}
    write(didemo(tmp_path) / "test_data.json", [entry, entry])

    with pytest.raises(
        DataError, match=r"annotation_id that occurs twice: 7 \(test_data.json: entry 1\)"
    ):
        load(tmp_path)


def test_real_files_give_the_measured_counts(shared: Path) -> None:
    # train_data.json is not among the real files, so val stands in for it
    root = shared / "data/annotations/didemo"
    annotations = load(root, train="val_data.json", train_list="val_list.txt")

    assert len(annotations.split("val").video_ids) == len(annotations.texts("val")) == 1065
    assert len(annotations.split("test").video_ids) == len(annotations.texts("test")) == 1004
    assert {
        "val: 1,065 paragraphs of 4,109 descriptions",
        "test: 1,004 paragraphs of 3,932 descriptions",
    } <= {*annotations.notes}


def test_real_training_list_has_the_published_length_with_and_without_the_lost_files(
    tmp_path: Path, shared: Path
) -> None:
    names = (shared / "data/annotations/didemo/train_list.txt").read_text().split()
    write(tmp_path / "train_data.json", [{"video": name, "description": "a"} for name in names])
    for name in (
        "train_list.txt",
        "val_list.txt",
        "test_list.txt",
        "val_data.json",
        "test_data.json",
    ):
        (tmp_path / name).symlink_to(shared / "data/annotations/didemo" / name)

    sizes = [
        len(load(tmp_path, exclude=gone).split("train").video_ids) for gone in ([], ["centerclip"])
    ]

    assert sizes == [8392, 8389]


def test_compress_keeps_the_first_seconds_alone_and_sets_missing_videos_aside(
    tmp_path: Path,
) -> None:
    didemo(tmp_path)
    film(tmp_path / "videos" / "4.mp4", Film(frames=40, fps=10))
    film(tmp_path / "videos" / "3@N03_c.mov.mp4", Film(frames=10, fps=10))
    spec = {"type": "didemo", "root": str(tmp_path), "seconds": 2}
    stage = Stage(
        Options(fps=3, short_side=32),
        {"videos": dataset_artefact(spec, "video_files")},
        tmp_path / "out",
    )

    manifest = runner.run(stage, settings=Settings(jobs=1, max_failures=1))

    records = {
        record.id: record for record in read_records(tmp_path / "out" / "_state" / "items.jsonl")
    }
    assert {i: r.facts["frames"] for i, r in records.items() if r.usable} == {
        "3@N03_c.mov": 3,
        "4.mp4": 6,
    }
    assert {i: r.reason for i, r in records.items() if not r.usable} == {
        "1@N01_a.3gp": "missing",
        "2@N02_b.": "missing",
    }
    assert manifest["summary"]["damaged"] == 0


def test_another_length_is_another_item(tmp_path: Path) -> None:
    write(didemo(tmp_path) / "videos" / "4.mp4", "x")
    specs = [{"type": "didemo", "root": str(tmp_path), "seconds": s} for s in (2, 3)]

    keys = [video_sources(dataset_artefact(spec, "video_files")).sources[-1].key for spec in specs]

    assert keys[0] != keys[1]
