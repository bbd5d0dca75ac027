"""The fetch stage against a server in this process: whole runs, interrupted runs, passwords, bad
lists.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cli
from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.core.state import read_records
from pipeline.core.todo import Settings
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import DataError
from pipeline.fetching import credentials
from pipeline.stages.fetch import Stage
from tests.conftest import ROOT
from tests.fetching.web import SECRET, USER, Web, serving
from tests.stages.store_runs import ONE, go
from tests.videos import Film, cut, write

QUICK = {"pause": 0.01, "patience": 0.5, "tries": 2}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    made = {
        name: write(folder / name, Film(frames=20 + n, noise=10))
        for n, name in enumerate(["a.mp4", "b.mp4"])
    }
    made["broken.mp4"] = cut(write(folder / "broken.mp4", Film(frames=60, noise=30)), 0.6)
    return {name: path.read_bytes() for name, path in made.items()} | {
        "text.mp4": b"not a film " * 20
    }


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (credentials.USER, credentials.PASSWORD, "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def web(films: dict[str, bytes]) -> Iterator[Web]:
    with serving(films) as site:
        yield site


def stage(web: Web, folder: Path, *paths: str, **options: object) -> Stage:
    """A stage that fetches these paths into `folder / "out"`."""
    (folder / "list.txt").write_text("".join(web.url(path) + "\n" for path in paths))
    return Stage(Stage.Options(links=folder / "list.txt", **QUICK | options), {}, folder / "out")


def files(folder: Path) -> list[str]:
    return sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and "_state" not in p.parts
    )


def parts(folder: Path) -> list[str]:
    return [path.suffix for path in (folder / "out/_state/partial").iterdir()]


def reasons(folder: Path) -> dict[str, str]:
    return {record.id: record.reason for record in read_records(folder / "out/_state/items.jsonl")}


def test_files_come_as_they_are(web: Web, films: dict[str, bytes], tmp_path: Path):
    manifest = go(stage(web, tmp_path, "plain/a.mp4", "plain/b.mp4"))

    assert files(tmp_path / "out") == ["a.mp4", "b.mp4"]
    assert (tmp_path / "out/a.mp4").read_bytes() == films["a.mp4"]
    assert manifest["summary"]["fetched_bytes"] == len(films["a.mp4"]) + len(films["b.mp4"])
    assert parts(tmp_path) == []


def test_files_are_compressed_and_originals_removed(web: Web, tmp_path: Path):
    go(
        stage(
            web,
            tmp_path,
            "cut/a.mp4",
            "plain/broken.mp4",
            compress={"fps": 3, "short_side": 64},
            tries=20,
        )
    )

    records = {record.id: record for record in read_records(tmp_path / "out/_state/items.jsonl")}
    assert records["a"].facts["height"] == 64
    assert (records["broken"].status, records["broken"].reason) == ("damaged", "truncated")
    assert files(tmp_path / "out") == ["a.mp4", "broken.mp4"]
    assert parts(tmp_path) == []


def test_fetching_and_compressing_equals_compressing_afterwards(web: Web, tmp_path: Path):
    from pipeline.stages.compress import Stage as Compress

    both = stage(web, tmp_path, "plain/a.mp4", compress={"short_side": 64})
    go(both)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.mp4").write_bytes(web.files["a.mp4"])
    videos = Artefact("video_files", tmp_path / "raw")
    go(Compress(Compress.Options(short_side=64), {"videos": videos}, tmp_path / "small"))

    assert (tmp_path / "out/a.mp4").read_bytes() == (tmp_path / "small/a.mp4").read_bytes()


def test_what_fails_is_set_aside_and_the_rest_comes(web: Web, tmp_path: Path):
    wanted = ["plain/a.mp4", "plain/gone.mp4", "plain/text.mp4", "status/500/s.mp4", "always/b.mp4"]

    go(stage(web, tmp_path, *wanted), ONE)

    assert reasons(tmp_path) == {
        "a": "", "gone": "missing", "text": "unreadable", "s": "io_error", "b": "io_error"
    }  # fmt: skip
    assert files(tmp_path / "out") == ["a.mp4"]
    assert sorted(parts(tmp_path)) == [".json", ".part"]  # the one that can go on


def test_a_second_run_asks_for_nothing_and_a_changed_list_for_what_is_new(web: Web, tmp_path: Path):
    go(stage(web, tmp_path, "plain/a.mp4"))
    go(stage(web, tmp_path, "plain/a.mp4", rate=100.0, tries=7))
    go(stage(web, tmp_path, "plain/a.mp4", "plain/b.mp4"))

    assert [asked[0] for asked in web.asked] == ["/plain/a.mp4", "/plain/b.mp4"]


def test_failed_files_are_continued_when_asked_to(web: Web, tmp_path: Path):
    go(stage(web, tmp_path, "cut/a.mp4", tries=1, max_bytes=1 << 20), ONE)
    go(stage(web, tmp_path, "cut/a.mp4", tries=30), Settings(jobs=1, retry_failed=True))

    assert reasons(tmp_path) == {"a": ""}
    assert web.asked[1][1].startswith("bytes=")


def test_the_result_is_an_input_of_other_steps_with_ids_of_the_address(web: Web, tmp_path: Path):
    go(stage(web, tmp_path, "plain/x/a.mp4", folders=True))

    sources = video_sources(Artefact("video_files", tmp_path / "out")).sources

    assert [(source.id, source.path) for source in sources] == [("x/a", tmp_path / "out/x/a.mp4")]


def test_a_password_from_a_netrc_opens_the_door_and_is_written_nowhere(web: Web, tmp_path: Path):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {SECRET}\n", encoding="utf-8")
    netrc.chmod(0o600)

    go(stage(web, tmp_path, "auth/a.mp4", netrc=netrc))

    assert files(tmp_path / "out") == ["a.mp4"]
    for path in (tmp_path / "out/_state").rglob("*"):
        assert path.is_dir() or (
            SECRET.encode() not in path.read_bytes() and b"Basic" not in path.read_bytes()
        )


def test_a_missing_password_stops_the_run_with_one_request(web: Web, tmp_path: Path):
    with pytest.raises(DataError, match="asks for a user name and password"):
        go(stage(web, tmp_path, "auth/a.mp4", "auth/b.mp4"))

    assert len(web.asked) == 1


def test_two_workers_read_the_password_from_the_environment(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(credentials.USER, USER)
    monkeypatch.setenv(credentials.PASSWORD, SECRET)

    manifest = run(stage(web, tmp_path, "auth/a.mp4", "auth/b.mp4", rate=50.0), "fetch", jobs=2)

    assert manifest["counts"]["ok"] == 2


def test_the_command_line_takes_a_list_and_shows_no_secrets(
    web: Web, tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "list.txt").write_text(web.url("status/404/a.mp4?token=hidden") + "\n")

    code = cli.main(
        [
            "fetch",
            "--links",
            str(tmp_path / "list.txt"),
            "--out",
            str(tmp_path / "out"),
            "--jobs",
            "1",
        ]
    )

    said = capsys.readouterr()
    assert code == 3
    assert "missing: the server does not have it (404)" in said.err
    assert "hidden" not in said.err + said.out


def test_a_killed_run_goes_on_in_the_middle_of_a_file(web: Web, tmp_path: Path):
    web.files["long.mp4"] = web.files["a.mp4"] + bytes(
        3_000_000
    )  # zeros after the film: still a film
    work = stage(web, tmp_path, "plain/long.mp4")
    command = [
        sys.executable,
        "cli.py",
        "fetch",
        "--links",
        tmp_path / "list.txt",
        "--out",
        tmp_path / "out",
    ]
    run_ = subprocess.Popen(
        [*map(str, command), "--rate", "1", "-j", "1"], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    while (
        not (part := next((tmp_path / "out/_state").glob("partial/*.part"), None))
        or part.stat().st_size < 300_000
    ):
        time.sleep(0.01)
    os.kill(run_.pid, signal.SIGKILL)
    run_.wait()

    assert files(tmp_path / "out") == []
    go(work)

    assert (tmp_path / "out/long.mp4").read_bytes() == web.files["long.mp4"]
    assert int(web.asked[-1][1].removeprefix("bytes=").rstrip("-")) >= 300_000


@pytest.mark.slow
def test_many_kills_leave_the_same_bytes_as_none(web: Web, tmp_path: Path):
    names = [f"f{n}.mp4" for n in range(6)]
    for n, name in enumerate(names):
        web.files[name] = web.files["a.mp4"] + bytes(400_000 + n)
    (tmp_path / "list.txt").write_text("".join(web.url(f"plain/{name}") + "\n" for name in names))
    command = [
        sys.executable,
        "cli.py",
        "fetch",
        "--links",
        str(tmp_path / "list.txt"),
        "--compress",
        "{short_side: 64}",
    ]

    def started(out: str, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / out), "-j", "2", *more],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )

    for delay in (0.6, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.1):
        run_ = started("killed", "--rate", "1")
        time.sleep(delay)
        os.kill(run_.pid, signal.SIGKILL)
        run_.wait()
    assert started("killed").wait() == 0
    assert started("whole").wait() == 0

    assert files(tmp_path / "killed") == files(tmp_path / "whole") == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert list((tmp_path / "killed/_state/partial").iterdir()) == []


def test_a_film_that_the_server_ends_early_is_no_whole_one(web: Web, tmp_path: Path):
    go(stage(web, tmp_path, "plain/broken.mp4"))

    (record,) = read_records(tmp_path / "out" / "_state" / "items.jsonl")
    assert (record.status, record.reason) == ("damaged", "truncated")
