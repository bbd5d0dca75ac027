"""The page in a real browser: typing finds, keys work, foreign names are text, a film plays."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.serve.collections import HOSTILE, made

pytest.importorskip("fastapi", reason="requirements-serve.txt is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="there is no chromium (Debian: apt install chromium)"),
]
WAIT = 20_000  # milliseconds; a page on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    made(folder)
    return folder


@pytest.fixture(scope="module")
def films(folder: Path) -> Path:
    return folder / "films"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """`serve` in a process of its own; SIGTERM ends it well."""
    index = folder / "idx"
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), "serve", str(index), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    yield server.stdout.readline().strip()
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=10) in (0, 130, -signal.SIGTERM)


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: "sync_api.Browser", address: str) -> Iterator["sync_api.Page"]:
    found = browser.new_page(viewport={"width": 390, "height": 800})
    found.set_default_timeout(WAIT)
    found.errors = []
    found.on("pageerror", lambda error: found.errors.append(str(error)))
    found.on("dialog", lambda dialog: found.errors.append(f"a dialog: {dialog.message}"))
    found.elsewhere = []
    found.on(
        "request",
        lambda asked: (
            asked.url.startswith((address, "data:", "blob:")) or found.elsewhere.append(asked.url)
        ),
    )
    found.goto(address)
    yield found
    assert found.errors == []
    assert found.elsewhere == []
    found.close()


def test_typing_shows_moments_and_a_hostile_name_is_text(page: "sync_api.Page") -> None:
    page.fill("#q", "a dog runs")
    page.wait_for_selector("#answers li")

    assert HOSTILE in page.inner_text("#answers")
    assert page.locator("#answers img[src=x]").count() == 0
    assert "searched 3 videos" in page.inner_text("#said")
    assert "q=a+dog+runs" in page.url


def test_keys_reach_the_box_and_play_a_moment(page: "sync_api.Page") -> None:
    page.fill("#q", "a dog")
    page.wait_for_selector("#answers li")
    page.locator("#answers .play").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#player[open]")

    source = page.get_attribute("#film", "src")
    page.keyboard.press("Escape")
    page.wait_for_selector("#player:not([open])", state="attached")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert source.startswith("/film?video=")
    assert page.evaluate("document.activeElement.id") == "q"


def test_more_and_not_like_this_ask_again(page: "sync_api.Page") -> None:
    page.fill("#q", "a dog")
    page.wait_for_selector("#answers li")

    page.locator("text=Not like this").first.click()

    page.wait_for_selector("#wanted button")
    assert "not like" in page.inner_text("#wanted")
    assert "unlike=" in page.url


def test_a_link_to_a_result_opens_it(page: "sync_api.Page", address: str) -> None:
    page.goto(f"{address}?q=a+dog&play=sub%2Flong&at=5&to=15")

    page.wait_for_selector("#player[open]")

    assert "sub/long" in page.inner_text("#player-title")
    assert page.get_attribute("#film", "src").endswith("#t=5,15")
    assert "to=15" in page.url


def test_a_film_that_is_gone_is_said_where_it_should_play(
    page: "sync_api.Page", address: str, films: Path
) -> None:
    (films / "a.mp4").rename(films / "kept")
    try:
        page.goto(f"{address}?q=a+dog&play=a&at=0")
        page.wait_for_function("document.getElementById('player-said').textContent !== ''")
        assert "not there any more" in page.inner_text("#player-said")
    finally:
        (films / "kept").rename(films / "a.mp4")


def test_a_picture_that_is_dropped_finds_videos(page: "sync_api.Page") -> None:
    page.evaluate(
        """async () => {
            const canvas = Object.assign(document.createElement('canvas'), {width: 40, height: 30});
            const blob = await new Promise(done => canvas.toBlob(done));
            const data = new DataTransfer();
            data.items.add(new File([blob], 'x.png', {type: 'image/png'}));
            document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}));
        }"""
    )

    page.wait_for_selector("#answers li")
    assert page.locator("#answers li").count() == 3


def test_a_picture_that_is_chosen_finds_videos(page: "sync_api.Page", tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(tmp_path / "x.png")

    page.set_input_files("#file", tmp_path / "x.png")

    page.wait_for_selector("#answers li")
    assert page.locator("#answers li").count() == 3


def test_every_field_has_a_name_and_text_has_contrast(page: "sync_api.Page") -> None:
    page.evaluate("document.getElementById('filters').open = true")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, a, img')]
            .filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label')
                && !e.textContent.trim() && !e.alt).map(e => e.outerHTML)"""
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for selector in ("body", "#said", "button[type=submit]", "a[href='/api']"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, (scheme, selector)
    assert nameless == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# the contrast of an element's text to the ground behind it (WCAG 2, relative luminance)
CONTRAST = """selector => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const light = rgb => {
        const [r, g, b] = rgb.slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let element = document.querySelector(selector);
    const ink = light(numbers(getComputedStyle(element).color));
    let ground = [0, 0, 0, 0];
    while (element && ground[3] === 0) {
        const found = numbers(getComputedStyle(element).backgroundColor);
        ground = found.length === 3 ? [...found, 1] : found;
        element = element.parentElement;
    }
    const both = [ink, light(ground)].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
}"""
