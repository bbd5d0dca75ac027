"""Where a login comes from, and what is refused."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.fetching.credentials import (
    PASSWORD,
    USER,
    Login,
    check_encrypted,
    check_servers,
    login,
)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (USER, PASSWORD, "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def netrc(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "netrc"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_anything_there_is_no_login():
    assert login("host") is None


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = netrc(tmp_path, "machine host login other password other")
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "secret")

    assert login("host", path) == Login("me", "secret")


def test_netrc_serves_its_own_hosts_only(tmp_path: Path):
    path = netrc(
        tmp_path, "machine host login me password secret\ndefault login any password any\n"
    )

    assert login("host", path) == Login("me", "secret")
    assert login("elsewhere", path) is None


def test_netrc_is_found_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("NETRC", str(netrc(tmp_path, "machine host login me password secret")))

    assert login("host") == Login("me", "secret")


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        ("machine host login me password secret", 0o644, "other users can read"),
        ("machine host wrong secret", 0o600, "line 1 is not of the form"),
    ],
)
def test_unsafe_and_broken_files_are_refused_without_repeating_them(
    text: str, mode: int, fault: str, tmp_path: Path
):
    path = netrc(tmp_path, text, mode)

    with pytest.raises(ConfigError, match=fault) as caught:
        login("host", path)

    assert caught.value.where == str(path)
    assert caught.value.fix
    assert "secret" not in str(caught.value)


def test_a_missing_netrc_is_named_when_it_was_asked_for(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such netrc"):
        login("host", tmp_path / "none")


def test_half_a_login_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(USER, "me")

    with pytest.raises(ConfigError, match=f"{PASSWORD} is not set"):
        login("host")


def test_one_password_is_not_sent_to_two_hosts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "secret")

    check_servers(["a", "a"])
    with pytest.raises(ConfigError, match="2 servers"):
        check_servers(["a", "b"])


def test_a_password_for_http_addresses_is_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "secret")
    plain = ["http://films.example/a.mp4", "http://films.example/b.mp4"]

    with pytest.raises(ConfigError, match="2 addresses are http, .* for films.example") as caught:
        check_encrypted(plain)

    assert "--plain-password" in caught.value.fix
    check_encrypted(["https://films.example/a.mp4", "http://127.0.0.1/a.mp4"])


def test_http_addresses_of_a_host_without_a_password_are_fine():
    check_encrypted(["http://films.example/a.mp4"])


def test_the_password_of_the_environment_never_goes_to_another_port(monkeypatch) -> None:
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "secret")

    check_servers(["host:8443", "host:8443"])
    with pytest.raises(ConfigError, match="2 servers"):
        check_servers(["host", "host:8443"])


def test_an_entry_of_a_netrc_serves_one_port_unless_each_has_its_own(tmp_path: Path) -> None:
    path = netrc(tmp_path, "machine host login me password secret")
    with pytest.raises(ConfigError, match="would serve 2 servers: host, host:8443"):
        check_servers(["host", "host:8443"], path)

    both = netrc(
        tmp_path, "machine host login me password secret\nmachine host:8443 login x password y"
    )
    check_servers(["host", "host:8443"], both)
    assert login("host:8443", both) == Login("x", "y")
