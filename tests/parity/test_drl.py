"""The recorded DRL cases pass; the two with processes of their own take half a minute."""

from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.parity.case import Case
from pipeline.parity.drl.model import tolerance
from pipeline.parity.run import run_case
from pipeline.text.clip_bpe import find_table

CASES = [
    "aggregation",
    "eval_multi_sentence",
    "eval_single",
    "full_dp_none_cdcr1",
    "full_wti2_seqtransf_cdcr3",
    "full_xti_seqtransf",
    "init_from_clip",
    "interactions",
]


@pytest.mark.parametrize(
    "name", [*CASES, *(pytest.param(f"ddp2_{i}", marks=pytest.mark.slow) for i in ("wti", "xti"))]
)
def test_recorded_models_agree(shared: Path, name: str) -> None:
    report = run_case(Case(shared / "golden/drl" / name))

    assert [row for row in report.rows if not row.ok] == []
    assert report.ok, report.faults


def test_recorded_texts_and_frames_agree(golden: Path) -> None:
    try:
        find_table()
    except DataError as error:
        pytest.skip(f"the table of the installed openai-clip is needed: {error}")

    report = run_case(Case(golden / "drl/preprocess"))

    assert [row for row in report.rows if not row.ok] == []
    assert report.ok, report.faults


def test_a_tolerance_in_words_has_two_parts() -> None:
    both = tolerance(
        "rtol 5e-3, atol 1e-5 (parameters whose gradient is zero move by rounding noise only)"
    )

    assert (both.absolute, both.relative) == (1e-5, 5e-3)
    assert (tolerance("atol 1e-4").absolute, tolerance("atol 1e-4").relative) == (1e-4, 0)
