"""Find recorded cases, run the handler of each, and see that nothing expected was left out."""

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import DataError
from pipeline.parity.case import DESCRIPTIONS, Case
from pipeline.parity.compare import Comparison, leaves

Handler = Callable[[Case], Iterable[Comparison]]
FOLDER = Path(__file__).resolve().parent
log = logging.getLogger(__name__)


@dataclass
class CaseReport:
    """What one case came to. `faults`: what failed besides its rows (no handler, not compared, an
    error).
    """

    name: str
    kind: str
    rows: list[Comparison] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.rows) and not self.faults and all(row.ok for row in self.rows)


def find_cases(paths: Iterable[Path]) -> list[Case]:
    """Return all cases at or below the paths, each once, in the order given and then by name.
    DataError if a path has none.
    """
    found: dict[Path, Case] = {}
    for path in map(Path, paths):
        start = path.parent if path.name == "case.json" else path
        files = sorted(start.rglob("case.json")) if start.is_dir() else []
        if not files:
            raise DataError(
                "no recorded case here (a folder with a case.json)",
                where=path,
                fix="Give the folder of a case, or a folder above it.",
            )
        found |= {
            file.parent.resolve(): Case(file.parent)
            for file in files
            if file.parent.resolve() not in found
        }
    return list(found.values())


def run_case(case: Case) -> CaseReport:
    """Run one case. Whatever goes wrong in a handler is a fault of that case; the others still
    run.
    """
    report = CaseReport(case.name, "?")
    try:
        report.kind = f"{case.system}/{case.kind}"
        handler = find_handler(case.system, case.kind)
        if handler is None:
            report.faults.append(f"unknown kind {report.kind}: no handler in pipeline/parity")
            return report
        report.rows.extend(handler(case))
        report.faults.extend(f"{name}: not compared" for name in _missing(case, report.rows))
        report.faults.extend(["no row was compared"] if not report.rows else [])
    except (
        Exception
    ) as error:  # a broken handler must show as a failed case beside the others, with its reason
        log.debug("parity %s", case.name, exc_info=True)
        report.faults.append(f"{type(error).__name__}: {error}")
    return report


def find_handler(system: str, kind: str) -> Handler | None:
    """Return the handler of a kind, from the files of `system`, or None if no file has it.
    ValueError if two files do.
    """
    found = []
    for name in handler_files(system):
        handlers = getattr(importlib.import_module(f"pipeline.parity.{name}"), "HANDLERS", {})
        found.extend([handlers[kind]] if kind in handlers else [])
    if len(found) > 1:
        raise ValueError(f"{system}/{kind} has {len(found)} handlers; keep one")
    return found[0] if found else None


def handler_files(system: str) -> list[str]:
    """Return names below `pipeline.parity` of the modules that may hold handlers of a system,
    sorted.
    """
    folder = system.replace("-", "_").replace(".", "_")
    stems = sorted(path.stem for path in (FOLDER / folder).glob("*.py"))
    return [f"{folder}.{stem}" for stem in stems if stem != "__init__"]


def _missing(case: Case, rows: list[Comparison]) -> Iterator[str]:
    """Yield names of what the case expects and no row covers."""
    covered = {row.name for row in rows} | {row.name.partition("[")[0] for row in rows}
    yield from (name for name in case.outputs if name != "dummy" and name not in covered)
    if "expected" in case.info:
        yield from (
            name for name in leaves("expected", case.info["expected"]) if name not in covered
        )
    tops = {name.partition(".")[0] for name in covered}
    yield from (
        f"case.json {key}" for key in case.info if key not in DESCRIPTIONS | case.info.read | tops
    )
    yield from (f"file {name}" for name in case.unused_files())
