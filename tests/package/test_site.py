"""The site: every link leads somewhere, and its reference holds everything there is."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

from pipeline import config, registry
from pipeline.commands._fields import every_field
from tests.conftest import ROOT


def test_the_site_builds_without_a_warning_and_its_reference_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]

    built = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )

    assert built.returncode == 0, built.stderr
    page = {p.stem: p.read_text() for p in (tmp_path / "site" / "reference").glob("*.html")}
    headings = set(re.findall(r'<h2 id="([\w-]+)"', page["commands"]))
    assert {*registry.names("command"), *registry.names("stage")} <= headings
    options, recipes = unescape(page["options"]), page["recipes"]
    assert [f.path for f in every_field() if f"<code>{f.path}</code>" not in options] == []
    assert [n for n in config.load().recipes if f"<code>{n}</code>" not in recipes] == []
    assert "items.jsonl" in page["state"]
    assert "//fonts.g" not in (tmp_path / "site" / "index.html").read_text()
