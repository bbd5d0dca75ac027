"""Where a file ought to end, from its own bytes."""

import io
from pathlib import Path

import pytest

from pipeline.video.structure import declared_end, opens_other_files
from tests.videos import Film, write

CONTAINERS = {
    ".mp4": ("mov,mp4", Film()),
    ".mkv": ("matroska,webm", Film(muxer={})),
    ".avi": ("avi", Film(codec="mpeg4", muxer={})),
    ".mpg": ("mpeg", Film(codec="mpeg2video", muxer={})),
    ".ts": ("mpegts", Film(muxer={})),
    ".gif": ("gif", Film(codec="gif", pixels="rgb8", muxer={}, frames=5)),
}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_whole_file_ends_where_it_says(suffix: str, tmp_path: Path):
    name, film = CONTAINERS[suffix]
    data = write(tmp_path / f"film{suffix}", film).read_bytes()

    assert declared_end(io.BytesIO(data), name, len(data)) == len(data)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_cut_file_is_shorter_than_it_says(suffix: str, tmp_path: Path):
    name, film = CONTAINERS[suffix]
    path = write(tmp_path / f"film{suffix}", film)
    data = path.read_bytes()[: path.stat().st_size * 11 // 20 | 1]
    path.write_bytes(data)

    assert declared_end(f"file:{path}", name, len(data)) > len(data)


def test_a_live_recording_says_nothing():
    head = bytes.fromhex("1a45dfa380 18538067 01ffffffffffffff")

    assert declared_end(io.BytesIO(head), "matroska,webm", len(head)) is None
    assert declared_end(io.BytesIO(b"whatever"), "flv", 8) is None


@pytest.mark.parametrize(
    "head",
    [
        b"ffconcat version 1.0\nfile other.mp4\n",
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"\xef\xbb\xbf\n#extm3u\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">',
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    ],
)
def test_playlists_and_scripts_are_recognised(head: bytes):
    assert opens_other_files(head)


@pytest.mark.parametrize(
    "head", [b"", b"<html><body>404</body></html>", b"\0\0\0\x20ftypisom", b"some text\n"]
)
def test_other_files_are_not(head: bytes):
    assert not opens_other_files(head)
