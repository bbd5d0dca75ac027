"""Write one HTML page on everything behind some results.

    python cli.py report --in data/work/demo/evaluate --out report

report.html needs no other file. Equal inputs give equal bytes, so times and the command as typed
are in a second page, _state/times.html, which report.html shows if it lies beside it.
"""

import platform
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import BaseModel, Field

from pipeline import __version__
from pipeline.core import stage
from pipeline.core.artefact import Artefact
from pipeline.core.files import atomic_write, disk_name, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import (
    STATE,
    digest,
    read_manifest,
    read_records,
    stored_bytes,
    usable_records,
)
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.report.page import Report, ReportEntry, ReportStep

PAGE = "report.html"
_PLAYED = (".mp4", ".webm")  # by every browser
_PLACES = frozenset(
    {"root", "path"}
)  # options that say where things lie: the page must not depend on it


class Options(BaseModel, extra="forbid"):
    title: str = Field(
        "Text-video retrieval", min_length=1, max_length=200, description="heading of the page"
    )
    thumbnails: bool = Field(True, description="show pictures of the best and worst queries")


@dataclass(frozen=True)
class _Made:
    """A finished step that the results depend on."""

    name: str
    path: Path
    manifest: dict

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """(id, reason, message) of items set aside; paths of this machine taken out of the
        messages.
        """
        if not self.manifest["counts"].get("failed"):
            return []
        records = [r for r in read_records(self.path / STATE / "items.jsonl") if not r.usable]
        place = f"{self.path.resolve().parent}/"
        return sorted(
            (r.id, r.reason, r.message.replace(place, "").replace(f"{self.path.parent}/", ""))
            for r in records
        )

    @property
    def options(self) -> dict:
        """The options that matter, without places."""
        return {
            k: v for k, v in self.manifest["lineage"].get(self.name, {}).items() if k not in _PLACES
        }


class Stage(stage.Stage):
    needs = {"results": Need("results", many=True, help="results: --out of evaluate")}
    makes = "report"
    runs = "inline"
    Options = Options

    def items(self) -> list[Item]:
        """Return one item, whose key is everything that the page shows."""
        shown = [
            [m.name, m.manifest["content"], m.manifest["counts"], m.options, m.failures]
            for m in self._steps()
        ]
        versions = [m.manifest["packages"] for m in self._steps()]
        return [
            Item(
                "report",
                digest(
                    [
                        [made.content for made in self.inputs["results"]],
                        shown,
                        versions,
                        __version__,
                    ]
                ),
            )
        ]

    def process(self, item: Item) -> Outcome:
        """Write the page, and beside it how long the steps took."""
        from pipeline.report.page import RUN_PAGE, page

        steps = self._steps()
        atomic_write(self.out / PAGE, page(self._collect(steps)))
        atomic_write(self.out / RUN_PAGE, _run_page(steps))
        return Outcome(outputs={PAGE: written(self.out / PAGE)})

    def finish(self, records: list) -> dict:
        return {"page": PAGE} if records else {}

    def _steps(self) -> list[_Made]:
        """Return every finished step that the results depend on, sources first."""
        found: dict[Path, _Made] = {}
        for made in self.inputs["results"]:
            _walk(made.step, made.path, found)
        return list(found.values())

    def _collect(self, steps: list[_Made]) -> "Report":
        from pipeline.report.page import Report

        by_name = {step.name: step for step in steps}
        entries = [entry for made in self.inputs["results"] for entry in _entries(made, by_name)]
        if not entries:
            raise DataError(
                "there are no evaluated checkpoints",
                where="report",
                fix="Run the evaluate step first.",
            )
        pictures = self._thumbnails(entries, steps) if self.options.thumbnails else {}
        packages = dict(
            sorted({k: v for step in steps for k, v in step.manifest["packages"].items()}.items())
        )
        versions = {"tvrkit": __version__, "Python": platform.python_version()} | packages
        return Report(
            self.options.title,
            entries,
            [_step(step) for step in steps],
            versions,
            pictures,
            self._clips(steps),
        )

    def _clips(self, steps: list[_Made]) -> dict[str, str]:
        """Return where the page finds the clips that a browser plays: those of steps beside this
        one, so that the address is the same wherever the pipeline's folder lies.
        """
        found: dict[str, str] = {}
        for step in reversed(steps):
            if step.manifest["makes"] != "video_files" or not self._is_beside(step):
                continue
            for record in usable_records(step.path):
                name = next(iter(record.outputs), "")
                if name.lower().endswith(_PLAYED):
                    found.setdefault(record.id, quote(f"../{step.path.name}/{name}"))
        return found

    def _is_beside(self, step: _Made) -> bool:
        """Return whether a step, or a copy of it, lies in the folder of this one's: a pipeline that
        was copied says the same as the one it was copied from.
        """
        copy = read_manifest(self.out.parent / step.path.name)
        return copy is not None and copy["content"] == step.manifest["content"]

    def _thumbnails(
        self, entries: list["ReportEntry"], steps: list[_Made]
    ) -> dict[str, list[bytes]]:
        from pipeline.report.thumbnails import PictureSource, thumbnails

        queries = [
            q for entry in entries for side in entry.metrics["examples"].values() for q in side
        ]
        wanted = [
            video for q in queries for video in [q["video"], *(a["video"] for a in q["answers"])]
        ]
        order = (
            "frame_store",
            "video_files",
        )  # frames of the right size, else small files, else the originals
        sources = [
            PictureSource(kind, s.path)
            for kind in order
            for s in reversed(steps)
            if s.manifest["makes"] == kind
        ]
        return thumbnails(wanted, sources)


def _walk(name: str, path: Path, found: dict[Path, _Made]) -> None:
    manifest = read_manifest(path)
    place = path.resolve()
    if manifest is None or place in found:
        return
    for source in manifest["inputs"].values():
        for made in source if isinstance(source, list) else [source]:
            if made is not None:
                _walk(made["step"], Path(made["path"]), found)
    found[place] = _Made(name or manifest["step"], path, manifest)


def _entries(made: Artefact, steps: dict[str, _Made]) -> Iterator["ReportEntry"]:
    """Yield the evaluated checkpoints of one results folder, each with the curves of its
    training.
    """
    from pipeline.evaluation import results
    from pipeline.report import plots
    from pipeline.report.page import ReportEntry
    from pipeline.report.paper_figures import figures

    for metrics in results.read_all(made.path):
        folder = made.path / disk_name(metrics["checkpoint"])
        trained = steps.get(metrics["checkpoint"])
        curves = trained.path / "metrics.jsonl" if trained else None
        train, validation = plots.read_curves(curves) if curves and curves.is_file() else ({}, {})
        ranks = results.read_ranks(folder, next(iter(metrics["results"])))
        yield ReportEntry(
            metrics, ranks, train, validation, figures(metrics["recipe"], metrics["videos"])
        )


def _step(made: _Made) -> "ReportStep":
    from pipeline.report.page import ReportStep

    records = [r for r in read_records(made.path / STATE / "items.jsonl") if r.usable]
    size = stored_bytes(records)
    manifest = made.manifest
    return ReportStep(
        name=made.name,
        stage=manifest["stage"],
        counts=manifest["counts"],
        bytes=size,
        options=made.options,
        failures=made.failures,
    )


def _run_page(steps: list[_Made]) -> str:
    from pipeline.report.page import run_page

    command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    machine = f"{platform.node()}, {platform.system()} {platform.release()}, {platform.machine()}"
    times = [(step.name, step.manifest["seconds"]) for step in steps]
    return run_page(command, when, machine, times, _speeds(steps))


def _speeds(steps: list[_Made]) -> list[tuple[str, str]]:
    """Return how fast each checkpoint was evaluated: (name, words), as far as it is known."""
    from pipeline.evaluation.speed import read_speed

    records = [
        (step.path, record.id)
        for step in steps
        if step.manifest["makes"] == "results"
        for record in usable_records(step.path)
    ]
    found = [(name, read_speed(path, name)) for path, name in records]
    return [(name, speed.words) for name, speed in found if speed is not None]
