"""Opening hostile files: nothing is followed, nothing blocks, nothing large is allocated."""

import os
from pathlib import Path

import av
import pytest
from click.testing import CliRunner

from pipeline.commands.doctor import command as doctor
from pipeline.errors import ItemError, SystemRefused
from pipeline.video.container import open_video, scan
from pipeline.video.frame_rule import Limits
from tests.videos import Film, add_film, encoded, write


def reason(source: Path | bytes, limits: Limits = Limits()) -> str:  # noqa: B008
    with pytest.raises(ItemError) as caught, open_video(source, limits):
        pass
    return caught.value.reason


def test_a_script_that_names_another_file_is_refused_and_not_followed(tmp_path: Path):
    film = write(tmp_path / "film.mp4")
    script = tmp_path / "script.mp4"
    script.write_text(f"ffconcat version 1.0\nfile {film}\n")

    assert reason(script) == "forbidden_format"
    assert reason(script.read_bytes()) == "forbidden_format"


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8"])
def test_a_playlist_is_refused_whatever_its_name(suffix: str, tmp_path: Path):
    film = write(tmp_path / "film.mp4")
    playlist = tmp_path / f"list{suffix}"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{film}\n#EXT-X-ENDLIST\n")

    assert reason(playlist) == "forbidden_format"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"<html>404 not found</html>" * 30, "unreadable"),
        (bytes(range(256)) * 20, "unreadable"),
    ],
)
def test_what_is_no_video_is_named(data: bytes, expected: str, tmp_path: Path):
    path = tmp_path / "x.mp4"
    path.write_bytes(data)

    assert reason(path) == reason(data) == expected


def test_a_pipe_a_folder_and_a_missing_file_do_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")

    for name in ("pipe.mp4", "folder.mp4", "loop.mp4", "missing.mp4"):
        assert reason(tmp_path / name) == "io_error"


def test_sound_alone_is_no_video(tmp_path: Path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 16000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    assert reason(path) == "no_video_stream"


@pytest.mark.parametrize("sizes", [(64, 160), (160, 64)])
def test_the_larger_of_two_films_is_taken(sizes: tuple[int, int], tmp_path: Path):
    path = tmp_path / "two.mkv"
    films = [Film(frames=5, width=size, height=size) for size in sizes]
    with av.open(str(path), "w") as container:
        streams = [add_film(container, film) for film in films]
        for stream, film in zip(streams, films, strict=True):
            for packet in encoded(stream, film):
                container.mux(packet)

    with open_video(path, Limits()) as video:
        assert video.stream.width == 160


def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=2))

    assert reason(path, Limits(max_pixels=160 * 120 - 1)) == "too_large"
    with open_video(path, Limits(max_pixels=160 * 120)) as video:
        assert scan(video).count == 2


def test_a_still_picture_under_a_film_s_name_is_one_frame(tmp_path: Path):
    path = tmp_path / "still.mp4"
    write(tmp_path / "still.png", Film(frames=1, codec="png", pixels="rgb24", muxer={})).rename(
        path
    )

    with open_video(path, Limits()) as video:
        assert scan(video).count == 1


def test_the_scan_counts_packets_and_collects_times(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=30))

    with open_video(path, Limits()) as video:
        found = scan(video)

    assert found.count == len(found.packets) == 30
    assert sorted(found.stamps)[1] * video.timing.tick == video.timing.step
    assert found.starts_with_key
    assert found.faults == 0
    assert found.seconds == pytest.approx(30 / 25)


def test_a_system_that_does_not_name_open_files_blames_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write(tmp_path / "a.mp4")
    monkeypatch.setattr("pipeline.video.container.OPEN_FILES", (str(tmp_path / "none"),))

    with pytest.raises(SystemRefused, match="no name") as caught, open_video(film, Limits()):
        pass

    assert caught.value.exit_code == 6 and "mount -t proc" in caught.value.fix
    found = CliRunner().invoke(doctor, standalone_mode=False)
    assert "MISSING  open files" in found.output
