"""Who may be told a password, before any address is contacted; what an answer says about itself."""

from urllib.parse import urlsplit

import pytest

from pipeline.errors import ItemError
from pipeline.fetching.credentials import Login
from pipeline.fetching.http import Manners, TransferError, get, may_know
from tests.fetching.web import serving

NOBODY = "http://films.invalid/a.mp4"  # a name that never resolves (RFC 2606)


def ask(url: str, login: Login | None = None, **manners: object) -> tuple[int, bytes]:
    with get(url, {}, login, Manners(patience=0.5, **manners)) as reply:
        return reply.status, b"".join(reply.chunks())


def test_a_password_does_not_travel_in_the_open():
    with pytest.raises(ItemError, match="anybody can read a password") as caught:
        ask(NOBODY, Login("me", "secret"))

    assert "--plain-password" in caught.value.message
    assert "secret" not in caught.value.message


def test_a_redirect_to_another_port_gets_no_password():
    with serving({"a.mp4": b"x"}) as first, serving({"a.mp4": b"yz"}) as second:
        first.redirects["/go/a.mp4"] = second.url("plain/a.mp4")

        assert ask(first.url("go/a.mp4"), Login("me", "secret")) == (200, b"yz")
        assert (first.asked[0][2] is None, second.asked[0][2]) == (False, None)


@pytest.mark.parametrize(
    ("target", "knows"),
    [
        ("https://films.example/b", True),
        ("https://films.example:443/b", True),
        ("https://films.example:8443/b", False),
        ("https://other.example/b", False),
        ("https://films.example.other.example/b", False),
        ("https://films.example@other.example/b", False),
    ],
)
def test_a_login_is_told_to_its_own_server_alone(target: str, knows: bool):
    assert may_know(urlsplit(target), urlsplit("https://films.example/a"), Manners()) is knows


def test_a_login_follows_a_server_to_its_encrypted_port():
    first = urlsplit("http://films.example/a")

    assert may_know(urlsplit("https://films.example/a"), first, Manners())
    assert not may_know(urlsplit("https://films.example:444/a"), first, Manners())
    assert not may_know(first, urlsplit("https://films.example/a"), Manners())


def test_a_relative_redirect_stays_on_the_host():
    with serving({"a.mp4": b"x"}) as web:
        web.redirects["/go/a.mp4"] = "../plain/a.mp4"

        assert ask(web.url("go/a.mp4")) == (200, b"x")


def test_the_query_reaches_the_server_but_no_message():
    with serving({"a.mp4": b"x"}) as web:
        ask(web.url("plain/a.mp4?key=hidden"))
        web.redirects["/go/a.mp4?key=hidden"] = web.url("go/a.mp4?key=hidden")
        with pytest.raises(ItemError) as caught:
            ask(web.url("go/a.mp4?key=hidden"))

    assert web.asked[0][0].endswith("?key=hidden")
    assert "hidden" not in caught.value.message


def test_whether_an_answer_says_where_it_ends():
    with serving({"a.mp4": b"x"}) as web:
        ends = []
        for kind in ("plain", "nolength"):
            with get(web.url(f"{kind}/a.mp4"), {}, None, Manners()) as reply:
                ends.append((reply.ends_itself, reply.length))

    assert ends == [(True, 1), (False, None)]


def test_a_server_that_says_nothing_is_given_up():
    with serving({}) as web, pytest.raises(TransferError, match="no answer from 127.0.0.1"):
        ask(web.url("silent/a.mp4"))
