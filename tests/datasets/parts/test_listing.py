"""Nothing in a folder is dropped, taken twice or missed without a word."""

import os
import unicodedata
from pathlib import Path

import pytest

from pipeline.core.artefact import Artefact
from pipeline.datasets.parts.listing import list_below
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import DataError

MP4 = b"\0\0\0\x20ftypisom"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def videos(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in list_below(folder).videos]


def test_links_to_folders_are_followed_each_real_folder_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "in/real/b.mp4", "disk/c.mp4", "disk/deep/d.mp4")
    (tmp_path / "disk/deep/up").symlink_to(tmp_path / "disk")
    (tmp_path / "in/again").symlink_to("real")
    (tmp_path / "in/more").symlink_to("../disk")
    (tmp_path / "in/same").symlink_to("../disk")
    (tmp_path / "in/top").symlink_to("..")

    listing = list_below(tmp_path / "in")

    found = [str(path.relative_to(tmp_path / "in")) for path in listing.videos]
    assert found == ["a.mp4", "real/b.mp4", "more/c.mp4", "more/deep/d.mp4"]
    assert listing.passed == {"again": ["again", "same"], "cycle": ["top", "more/deep/up"]}
    assert "2 links to folders that are read under other names (again, same)" in listing.account()


def test_a_link_to_a_disk_that_is_not_there_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "more").symlink_to("/disk/that/is/not/mounted")

    assert "1 link that leads nowhere (more)" in list_below(tmp_path).account()


def test_hidden_side_and_special_files_are_counted_and_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "._a.mp4", ".b.mp4", ".cache/c.mp4", "lost+found/d.mp4", "e.txt")
    os.mkfifo(tmp_path / "pipe.mp4")

    listing = list_below(tmp_path)

    assert [path.name for path in listing.videos] == ["a.mp4"]
    assert {reason: len(names) for reason, names in listing.passed.items()} == {
        "side": 1,
        "hidden": 3,
        "special": 1,
    }
    assert "1 file that is no video by its name (.txt 1: e.txt)" in listing.account()


def test_results_of_this_toolkit_below_the_folder_are_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "small/a.mp4", "small/_state/manifest.json", "small/sub/b.mp4")

    listing = list_below(tmp_path)

    assert [path.name for path in listing.videos] == ["a.mp4"]
    assert listing.passed == {"output": ["small"]}
    assert videos(tmp_path / "small") == ["a.mp4", "sub/b.mp4"]


@pytest.mark.parametrize(
    "head",
    [
        MP4,
        b"\x1a\x45\xdf\xa3webm",
        b"RIFF\0\0\0\0AVI LIST",
        b"G" + b"\0" * 187 + b"G",
        b"GIF89a",
    ],
)
@pytest.mark.parametrize("name", ["dQw4w9WgXcQ", "3086_UGLY_TRUTH_00.23.23.000-00.23.28.886"])
def test_a_file_without_suffix_is_a_video_if_it_begins_like_one(
    tmp_path: Path, head: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(head)
    touch(tmp_path, "README")

    assert videos(tmp_path) == [name]
    assert [s.id for s in video_sources(Artefact("video_files", tmp_path)).sources] == [name]


def test_names_that_differ_only_in_case_or_unicode_form_are_named(tmp_path: Path) -> None:
    cafe = "caf\u00e9.mp4"
    touch(tmp_path, "Clip.mp4", "clip.mp4", cafe, unicodedata.normalize("NFD", cafe))

    listing = list_below(tmp_path)

    assert len(listing.videos) == 4
    assert "2 pairs of names that differ only in case or Unicode form" in listing.account()


def test_a_folder_without_a_video_lists_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "a.xyz", "b.xyz", "notes.txt", ".c.mp4")

    with pytest.raises(DataError, match=r"no video in it: 3 files \(.xyz 2, .txt 1\).*hidden"):
        video_sources(Artefact("video_files", tmp_path))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no video in it: it is empty"):
        video_sources(Artefact("video_files", tmp_path))


def test_control_characters_of_names_are_not_printed(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "\x1b[31m.txt")

    assert "\x1b" not in list_below(tmp_path).account()
    assert "\\x1b[31m.txt" in list_below(tmp_path).account()


def test_a_folder_that_cannot_be_listed_is_an_error_not_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    with pytest.raises(DataError, match=r"1 folder below it cannot be listed: locked \(Perm"):
        list_below(tmp_path)
