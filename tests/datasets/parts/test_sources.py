"""Which files of a raw folder are videos, and under which ids."""

import os

import pytest

from pipeline.core.artefact import Artefact
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import DataError


def ids(folder) -> list[str]:
    return [s.id for s in video_sources(Artefact("video_files", folder)).sources]


def touch(folder, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_id_is_the_relative_path_without_its_last_suffix(tmp_path):
    touch(tmp_path, "a/clip.mp4", "b/clip.mp4", "two..dots...MP4", "notes.txt")

    assert ids(tmp_path) == ["a/clip", "b/clip", "two..dots.."]
    assert video_sources(Artefact("video_files", tmp_path)).ignored == 1


def test_videos_that_would_share_an_id_keep_their_suffix(tmp_path):
    touch(tmp_path, "clip.mp4", "clip.webm", "other.mp4")

    assert ids(tmp_path) == ["clip.mp4", "clip.webm", "other"]


def test_ids_that_are_still_equal_stop_before_anything_is_written(tmp_path):
    touch(tmp_path, "clip.mp4", "clip.webm", "clip.mp4.avi")

    with pytest.raises(DataError, match="two videos would have the id 'clip.mp4'"):
        ids(tmp_path)


def test_loops_pipes_and_folders_never_hang_the_walk(tmp_path):
    touch(tmp_path, "good.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "dangling.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")

    sources = {s.id: s.problem for s in video_sources(Artefact("video_files", tmp_path)).sources}

    assert sources.keys() == {"good", "loop", "dangling"}
    assert sources["good"] == ""
    assert sources["loop"]
    assert sources["dangling"]


def test_names_that_are_not_utf8_are_kept(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")

    assert ids(tmp_path) == [os.fsdecode(b"caf\xe9")]


def test_missing_folder_says_so(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        ids(tmp_path / "nowhere")
