"""The recorded DiffusionRet cases pass; the one with processes of its own takes longer."""

from pathlib import Path

import pytest

from pipeline.parity.case import Case
from pipeline.parity.run import run_case

CASES = [
    "disc_wti_seqtransf",
    "disc_wti_no_temporal",
    "gen_train_cosine50",
    "sample_cosine5_cosine10_linear25",
    "eval_12x12_cosine10",
]


@pytest.mark.parametrize("name", [*CASES, pytest.param("disc_ddp2", marks=pytest.mark.slow)])
def test_recorded_models_agree(shared: Path, name: str) -> None:
    report = run_case(Case(shared / "golden/diffusionret" / name))

    assert [row for row in report.rows if not row.ok] == []
    assert report.ok, report.faults


def test_recorded_schedules_agree(golden: Path) -> None:
    report = run_case(Case(golden / "diffusionret/schedules"))

    assert [row for row in report.rows if not row.ok] == []
    assert report.ok, report.faults
