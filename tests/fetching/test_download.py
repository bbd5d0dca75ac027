"""Downloads from a server that truncates, stalls, redirects, refuses: what comes is whole, what
does not ends soon.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import DataError, ItemError
from pipeline.fetching.credentials import Login
from pipeline.fetching.download import Rules, download
from pipeline.fetching.http import Manners
from pipeline.fetching.links import Link
from pipeline.fetching.rate_limit import RateLimit
from tests.fetching.web import SECRET, USER, Web, serving

DATA = os.urandom(3000)
QUICK = Rules(Manners(patience=0.3), tries=3, pause=0.01, largest=1 << 20)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving({"film.mp4": DATA}) as site:
        yield site


def fetch(
    web: Web,
    path: str,
    part: Path,
    rules: Rules = QUICK,
    login: Login | None = None,
    checksum: str = "",
) -> str:
    link = Link("film", web.url(path), ".mp4", checksum)
    return download(link, part, rules, login, RateLimit(part.parent / "rate", None))


def test_a_file_comes_whole_with_its_digest(web: Web, tmp_path: Path):
    found = fetch(web, "plain/film.mp4", tmp_path / "x.part")

    assert (tmp_path / "x.part").read_bytes() == DATA
    assert found == hashlib.sha256(DATA).hexdigest()


def test_a_complete_file_is_not_asked_for_again(web: Web, tmp_path: Path):
    for _ in range(2):
        fetch(web, "plain/film.mp4", tmp_path / "x.part")

    assert len(web.asked) == 1


def test_a_broken_connection_goes_on_where_it_stopped(web: Web, tmp_path: Path):
    fetch(web, "cut/film.mp4", tmp_path / "x.part", Rules(QUICK.manners, tries=10, pause=0.001))

    assert (tmp_path / "x.part").read_bytes() == DATA
    assert [asked[1] for asked in web.asked[:3]] == [None, "bytes=1500-", "bytes=2250-"]


def test_a_server_without_ranges_starts_anew(web: Web, tmp_path: Path):
    fetch(web, "norange/film.mp4", tmp_path / "x.part")

    assert (tmp_path / "x.part").read_bytes() == DATA
    assert len(web.asked) == 2


def test_halves_of_two_versions_are_never_joined(web: Web, tmp_path: Path):
    fetch(web, "changing/film.mp4", tmp_path / "x.part")

    assert (tmp_path / "x.part").read_bytes() == DATA + b"\x02"


def test_a_later_run_continues_a_partial_file(web: Web, tmp_path: Path):
    with pytest.raises(ItemError):
        fetch(web, "always/film.mp4", tmp_path / "x.part")
    kept = (tmp_path / "x.part").stat().st_size
    before, after = (
        hashlib.sha256(web.url(f"{kind}/film.mp4").encode()).hexdigest()
        for kind in ("always", "plain")
    )
    (tmp_path / "x.json").write_text((tmp_path / "x.json").read_text().replace(before, after))

    fetch(web, "plain/film.mp4", tmp_path / "x.part")

    assert kept == 9
    assert web.asked[-1][1] == "bytes=9-"
    assert (tmp_path / "x.part").read_bytes() == DATA


@pytest.mark.parametrize("note", ["", "not json", '{"address": 3}', "[]", '{"what": 1}'])
def test_a_partial_file_without_a_sound_note_is_not_trusted(note: str, web: Web, tmp_path: Path):
    (tmp_path / "x.part").write_bytes(b"of something else")
    (tmp_path / "x.json").write_text(note)

    fetch(web, "plain/film.mp4", tmp_path / "x.part")

    assert (tmp_path / "x.part").read_bytes() == DATA


def test_a_file_that_never_completes_ends_after_its_tries(web: Web, tmp_path: Path):
    with pytest.raises(
        ItemError, match=r"ended after 9 of 3,000 bytes \(tried 3 times\)"
    ) as caught:
        fetch(web, "always/film.mp4", tmp_path / "x.part")

    assert caught.value.reason == "io_error"
    assert len(web.asked) == 3


def test_what_comes_again_and_again_is_no_progress(web: Web, tmp_path: Path):
    web.files["long.mp4"] = bytes(3 << 20)

    with pytest.raises(ItemError, match="tried 3 times"):
        fetch(
            web,
            "forgetful/long.mp4",
            tmp_path / "x.part",
            Rules(QUICK.manners, 3, 0.001, largest=4 << 20),
        )

    assert len(web.asked) == 4


def test_progress_is_worth_new_tries(web: Web, tmp_path: Path):
    web.files["long.mp4"] = bytes(9 << 20)

    fetch(
        web, "steps/long.mp4", tmp_path / "x.part", Rules(QUICK.manners, 1, 0.001, largest=16 << 20)
    )

    assert (tmp_path / "x.part").stat().st_size == 9 << 20
    assert len(web.asked) == 5


@pytest.mark.parametrize("path", ["stall/film.mp4", "silent/film.mp4", "letters/film.mp4"])
def test_a_server_that_stalls_costs_bounded_time(path: str, web: Web, tmp_path: Path):
    start = time.monotonic()

    with pytest.raises(ItemError, match="tried 2 times"):
        fetch(web, path, tmp_path / "x.part", Rules(QUICK.manners, tries=2, pause=0.01))

    assert time.monotonic() - start < 4
    assert len(web.asked) == 2


@pytest.mark.parametrize(
    ("status", "reason", "asked"),
    [
        (404, "missing", 1),
        (410, "missing", 1),
        (403, "io_error", 1),
        (400, "io_error", 1),
        (500, "io_error", 3),
    ],
)
def test_statuses_end_as_they_should(
    status: int, reason: str, asked: int, web: Web, tmp_path: Path
):
    with pytest.raises(ItemError) as caught:
        fetch(web, f"status/{status}/film.mp4", tmp_path / "x.part")

    assert caught.value.reason == reason
    assert str(status) in caught.value.message
    assert len(web.asked) == asked


def test_a_busy_server_is_asked_again(web: Web, tmp_path: Path):
    fetch(web, "busy/film.mp4", tmp_path / "x.part")

    assert len(web.asked) == 3
    assert (tmp_path / "x.part").read_bytes() == DATA


def test_a_wrong_password_stops_everything_and_is_not_shown(web: Web, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        fetch(
            web,
            "auth/film.mp4?key=hidden",
            tmp_path / "x.part",
            login=Login(USER, "wrong-password"),
        )

    assert len(web.asked) == 1
    assert "TVRKIT_FETCH_PASSWORD" in str(caught.value)
    assert "wrong-password" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_the_right_password_opens_the_door(web: Web, tmp_path: Path):
    fetch(web, "auth/film.mp4", tmp_path / "x.part", login=Login(USER, SECRET))

    assert (tmp_path / "x.part").read_bytes() == DATA
    assert SECRET not in repr(Login(USER, SECRET))


def test_the_note_of_a_partial_file_does_not_repeat_the_key_in_its_address(
    web: Web, tmp_path: Path
):
    with pytest.raises(ItemError):
        fetch(web, "always/film.mp4?key=hidden", tmp_path / "x.part")

    assert "hidden" not in (tmp_path / "x.json").read_text()


def test_a_redirect_is_followed_without_the_password_on_another_host(web: Web, tmp_path: Path):
    with serving({"film.mp4": DATA}) as other:
        web.redirects["/go/film.mp4"] = other.url("plain/film.mp4")
        fetch(web, "go/film.mp4", tmp_path / "x.part", login=Login(USER, SECRET))

        assert web.asked[0][2]
        assert other.asked[0][2] is None
    assert (tmp_path / "x.part").read_bytes() == DATA


@pytest.mark.parametrize(
    "place",
    ["file:///etc/passwd", "ftp://127.0.0.1/film.mp4", "gopher:x", "http://:80", "//[", "data:,x"],
)
def test_a_redirect_to_anything_but_the_web_is_refused(place: str, web: Web, tmp_path: Path):
    web.redirects["/go/film.mp4"] = place

    with pytest.raises(ItemError, match="refused"):
        fetch(web, "go/film.mp4", tmp_path / "x.part")

    assert len(web.asked) == 1
    assert not (tmp_path / "x.part").exists()


def test_redirects_in_a_circle_end(web: Web, tmp_path: Path):
    web.redirects["/go/film.mp4"] = web.url("go/film.mp4")

    with pytest.raises(ItemError, match="more than 5 redirects"):
        fetch(web, "go/film.mp4", tmp_path / "x.part")

    assert len(web.asked) == 6


def test_a_web_page_is_no_video(web: Web, tmp_path: Path):
    with pytest.raises(ItemError, match="web page") as caught:
        fetch(web, "page/film.mp4", tmp_path / "x.part")

    assert caught.value.reason == "unreadable"


def test_a_file_of_unknown_length_needs_a_checksum(web: Web, tmp_path: Path):
    with pytest.raises(ItemError, match="does not say how long"):
        fetch(web, "nolength/film.mp4", tmp_path / "x.part")

    fetch(web, "nolength/film.mp4", tmp_path / "x.part", checksum=hashlib.sha256(DATA).hexdigest())

    assert (tmp_path / "x.part").read_bytes() == DATA


@pytest.mark.parametrize("path", ["plain/film.mp4", "liar/film.mp4"])
def test_a_file_beyond_the_limit_is_cut_off(path: str, web: Web, tmp_path: Path):
    with pytest.raises(ItemError) as caught:
        fetch(
            web, path, tmp_path / "x.part", Rules(QUICK.manners, tries=2, pause=0.01, largest=2000)
        )

    assert caught.value.reason == "too_large"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_checksums_are_compared(kind: str, web: Web, tmp_path: Path):
    fetch(web, "plain/film.mp4", tmp_path / "x.part", checksum=hashlib.new(kind, DATA).hexdigest())

    with pytest.raises(ItemError, match=kind) as caught:
        fetch(
            web,
            "plain/film.mp4",
            tmp_path / "y.part",
            checksum=hashlib.new(kind, b"other").hexdigest(),
        )

    assert caught.value.reason == "bad_value"
    assert not (tmp_path / "y.part").exists()


def test_nobody_listening_ends_soon(tmp_path: Path):
    with serving({}) as web:
        url = web.url("plain/film.mp4")

    with pytest.raises(ItemError, match="no answer from 127.0.0.1"):
        download(
            Link("film", url, ".mp4"),
            tmp_path / "x.part",
            QUICK,
            None,
            RateLimit(tmp_path / "rate", None),
        )


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not here")
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    subprocess.run(
        [*made, "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"],
        check=True,
        capture_output=True,
    )
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "key").read_bytes() + (tmp_path / "certificate").read_bytes())

    with (
        serving({"film.mp4": DATA}, both) as web,
        pytest.raises(ItemError, match="certificate of 127.0.0.1"),
    ):
        fetch(web, "plain/film.mp4", tmp_path / "x.part", login=Login(USER, SECRET))

    assert web.asked == []
