"""Fixtures shared by all tests: where recorded cases and real data are."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Examples are not timed: a machine that does other work as well is no fault of the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Before anything imports torch. Two test processes on two cores: one thread each. And no thread
# pool that a forked child would wait for: several tests fork one to kill it or to fill its disk,
# and OpenMP's pool does not survive that.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# Programs that tests start compile our modules once, not each time, whatever the machine prefers.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and recorded cases beside the project; the test is skipped where it
    is absent.
    """
    if not (SHARED / "golden").is_dir():
        pytest.skip("../shared is not here")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recorded cases: all of them where ../shared is, else the small ones copied to
    tests/golden.
    """
    return SHARED / "golden" if (SHARED / "golden").is_dir() else ROOT / "tests" / "golden"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of `make torture`: what was done to which step, and how often it held."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
    ]
    rows = [
        (*value, report.outcome)
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == "torture"
    ]
    if rows:
        terminalreporter.section("torture")
        for step, what, held, outcome in sorted(rows):
            terminalreporter.write_line(f"{step:<16} {what:<44} {held:<34} {outcome}")
