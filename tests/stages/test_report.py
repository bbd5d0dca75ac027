"""The report step: one page, equal bytes, nothing of this machine in it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.core import runner
from pipeline.core.artefact import Artefact
from pipeline.errors import DataError
from pipeline.stages.report import Options, Stage
from tests.evaluation.world import evaluate, world


def results_in(folder: Path, inputs: dict | None = None, **options: object) -> Artefact:
    manifest = evaluate(folder, inputs, **options)
    return Artefact(
        "results",
        folder,
        manifest["fingerprint"],
        manifest["content"],
        "evaluate",
        manifest["options"],
    )


def report(out: Path, *made: Artefact, **options: object) -> str:
    runner.run(Stage(Options(**options), {"results": list(made)}, out), "report", jobs=1)
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_table_bars_queries_and_steps(tmp_path: Path) -> None:
    page = report(
        tmp_path / "report",
        results_in(tmp_path / "results", rerank=["none", "dsl"]),
        title="Tables & bars",
    )

    for words in (
        "Tables &amp; bars",
        "with dual softmax",
        "colour",
        "Queries, won and lost",
        "evaluate",
        "torch",
    ):
        assert words in page


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = report(tmp_path / "report", results_in(tmp_path / "results"))

    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page


def test_equal_results_in_other_folders_give_an_equal_page(tmp_path: Path) -> None:
    pages = [
        report(tmp_path / n / "report", results_in(tmp_path / n / "evaluate")) for n in ("a", "b")
    ]

    assert pages[0] == pages[1]
    assert str(tmp_path) not in pages[0]


def test_places_of_a_step_are_not_in_the_page(tmp_path: Path) -> None:
    shutil.copytree(world().folder / "features", tmp_path / "features")
    (tmp_path / "features" / "_state").mkdir()
    options = {"path": "/somewhere/else", "format": "bigfile-format"}
    facts = {
        "step": "features",
        "stage": "adopt",
        "makes": "features",
        "inputs": {},
        "content": "c",
        "packages": {},
    }
    manifest = facts | {
        "lineage": {"features": options},
        "counts": {"ok": 1, "failed": 0},
        "seconds": 1.0,
    }
    (tmp_path / "features" / "_state" / "manifest.json").write_text(json.dumps(manifest))
    features = Artefact("features", tmp_path / "features", "f", "c", "features")

    page = report(
        tmp_path / "report",
        results_in(tmp_path / "results", world().inputs | {"features": features}),
    )

    assert "bigfile-format" in page
    assert "/somewhere/else" not in page


def test_times_and_command_are_kept_apart(tmp_path: Path) -> None:
    page = report(tmp_path / "report", results_in(tmp_path / "results"))

    times = (tmp_path / "report" / "_state" / "times.html").read_text()

    assert "in all steps" in times
    assert "in all steps" not in page


def test_a_new_result_makes_a_new_page(tmp_path: Path) -> None:
    first = report(tmp_path / "report", results_in(tmp_path / "results"))

    assert report(tmp_path / "report", results_in(tmp_path / "results", examples=1)) != first


def test_results_without_checkpoints_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="no evaluated checkpoints"):
        report(tmp_path / "report", Artefact("results", tmp_path / "empty"))
