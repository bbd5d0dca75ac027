import shutil
from pathlib import Path

import pytest

from pipeline.parity.case import Case
from pipeline.parity.run import run_case


@pytest.mark.parametrize("name, n_rows", [("text-stages", 21), ("text-stages-hybrid-space", 27)])
def test_every_recorded_value_of_the_text_stages_is_compared_and_equal(
    shared: Path, name: str, n_rows: int
) -> None:
    report = run_case(Case(shared / "golden" / "dual-encoding" / name))

    assert (report.faults, [row for row in report.rows if not row.ok]) == ([], [])
    assert len(report.rows) >= n_rows


def test_a_case_without_nltks_tagger_fails_with_the_reason(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(
        shared / "golden" / "dual-encoding" / "text-stages-hybrid-space", tmp_path / "case"
    )

    report = run_case(Case(tmp_path / "case"))

    assert not report.ok
    assert "NLTK's tagger is not there" in report.faults[0]
