"""Ids with line breaks and escapes: every table keeps one line for one item."""

import json
from pathlib import Path

import pytest

import cli
from tests.search.systems import checkpoint
from tests.videos import Film, write

HOSTILE = "clip\nstep up to date\x1b[31m"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A pipeline on a folder with a broken film whose name is hostile; compress set it aside."""
    films = tmp_path / "films"
    films.mkdir()
    (films / f"{HOSTILE}.mp4").write_bytes(b"no film")
    (films / "captions.csv").write_text(f'video,caption,split\n"{HOSTILE}.mp4",a dog,train\n')
    (tmp_path / "own.yaml").write_text(
        f"datasets: {{own: {{type: folder, root: {films}}}}}\n"
        "pipelines: {own: {dataset: own, steps: {compress: {}}}}\n"
    )
    return tmp_path


def test_failures_and_status_have_a_line_for_each_item(
    work: Path, capsys: pytest.CaptureFixture
) -> None:
    shared = ("own", "--config", str(work / "own.yaml"), "--work", str(work / "work"))
    cli.main(["run", *shared, "--max-failures", "1"])
    capsys.readouterr()

    for command in ("failures", "status"):
        assert cli.main([command, *shared]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert not any(line.startswith("step up to date") for line in out.splitlines())
        if command == "failures":
            assert len(out.splitlines()) == 1 and "clip\\nstep" in out


def test_search_keeps_one_line_for_each_answer_and_prints_no_escape(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = [f"{HOSTILE}\u202e<script>alert(1)", "$(id);`id`", "x" * 200]
    films = tmp_path / "films"
    for seed, name in enumerate(names):
        write(films / f"{name}.mp4", Film(frames=3 + seed, fps=3, width=64, height=48))
    weights = checkpoint(tmp_path / "model", "mean")[2]
    index, page = tmp_path / "index", tmp_path / "page.html"
    arguments = ["--in", films, "--checkpoint", weights, "--out", index]
    assert cli.main(["index", *map(str, arguments)]) == 0
    capsys.readouterr()

    assert cli.main(["search", str(index), "a dog", "--html", str(page)]) == 0
    table = capsys.readouterr().out
    assert cli.main(["search", str(index), "a dog", "--json"]) == 0
    values = capsys.readouterr().out

    assert len(table.splitlines()) == 1 + len(names)
    for text in (table, values):
        assert not {"\x1b", "\u202e"} & set(text)
    assert "<script>alert" not in page.read_text()
    assert {answer["video"] for answer in json.loads(values)["results"]} == set(names)
