"""Annotations against files: every kind of fault, and none where all is well."""

from pathlib import Path

import pytest

from pipeline.core.state import Record
from pipeline.datasets.base import Annotations, Caption, Split, Video
from pipeline.datasets.parts.inventory import KINDS, Expected, Inventory, take

FACTS = {"frames": 45, "fps": 3.0, "seconds": 15.0, "width": 298, "height": 224, "codec": "h264"}


def annotations(*ids: str, paths: dict[str, Path] | None = None) -> Annotations:
    videos = {i: Video(i, (paths or {}).get(i)) for i in ids}
    captions = {f"{i}#0": Caption(f"{i}#0", i, "words") for i in ids}
    return Annotations(videos, captions, {"test": Split(list(captions), list(ids))})


def record(name: str, folder: str = "/films", suffix: str = ".mp4", **changes: object) -> Record:
    facts = FACTS | {"sha256": name} | changes.pop("facts", {})
    values = {"status": "ok", "source": f"{folder}/{name}{suffix}", "facts": facts} | changes
    return Record(name, "key", "step", **values)


def compared(
    records: list[Record], *ids: str, published: dict | None = None, **expected: object
) -> Inventory:
    return take(annotations(*ids), records, published or {}, Expected(**expected))


def test_nothing_is_wrong_where_every_video_has_its_file():
    found = compared(
        [record("a"), record("b")], "a", "b", published={"test": (2, 2)}, fps=3, short_side=224
    )

    assert found.faults == {}
    assert found.splits["test"] == {
        "texts": 2,
        "videos": 2,
        "files": 2,
        "published": {"videos": 2, "texts": 2},
    }


@pytest.mark.parametrize(
    ("kind", "records", "line"),
    [
        ("missing", [record("a")], "b"),
        ("extra", [record("a"), record("b"), record("c")], "/films/c.mp4"),
        (
            "zero_length",
            [
                record("a"),
                record("b", status="failed", reason="empty", message="0 bytes", facts={}),
            ],
            "b: ",
        ),
        (
            "unreadable",
            [record("a"), record("b", status="failed", reason="unreadable", message="text")],
            "b: unread",
        ),
        (
            "damaged",
            [record("a"), record("b", status="damaged", reason="truncated", message="half")],
            "b: truncated",
        ),
        (
            "duplicate",
            [record("a"), record("b", facts={"sha256": "a"})],
            "b has the bytes of a (/films/b.mp4)",
        ),
        ("wrong_fps", [record("a"), record("b", facts={"fps": 29.97})], "b: 29.97 instead of 3"),
        (
            "wrong_size",
            [record("a"), record("b", facts={"width": 64, "height": 80})],
            "b: 64x80, short side 64",
        ),
    ],
)
def test_every_kind_of_fault_is_named_with_its_video(kind: str, records: list[Record], line: str):
    found = compared(records, "a", "b", fps=3, short_side=224)

    assert list(found.faults) == [kind]
    assert len(found.faults[kind]) == 1
    assert found.faults[kind][0].startswith(line)
    assert found.wrong() == [kind]
    assert found.wrong([kind]) == []


def test_two_files_of_one_name_are_told():
    found = compared([record("x/a", "/films"), record("y/a", "/films")], "a")

    assert found.faults["same_name"] == ["/films/x/a.mp4 and /films/y/a.mp4"]
    assert "missing" not in found.faults


def test_counts_other_than_published_are_told():
    found = compared([record("a")], "a", published={"test": (3, None), "train": (9, 9)})

    assert found.faults["protocol"] == ["test: 1 videos instead of 3"]


def test_the_file_that_the_reader_names_counts_before_a_name():
    given = annotations("a", paths={"a": Path("/films/other.mp4")})

    found = take(given, [record("a"), record("other")], {}, Expected())

    assert found.faults == {"extra": ["/films/a.mp4"]}


def test_the_report_is_plain_and_complete():
    report = compared([], *(f"v{n}" for n in range(10))).to_json()

    assert report["faults"]["missing"]["count"] == 10
    assert len(report["faults"]["missing"]["items"]) == 10
    assert report["faults"]["missing"]["what"] == KINDS["missing"]
