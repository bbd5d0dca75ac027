"""Fixtures shared by all tests: where recorded cases and real data are."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and recorded cases beside the project; the test is skipped where it is absent."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("../shared is not here")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recorded cases: all of them where ../shared is, else the small ones copied to tests/golden."""
    return SHARED / "golden" if (SHARED / "golden").is_dir() else ROOT / "tests" / "golden"
