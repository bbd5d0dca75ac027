"""What a case must have compared, and what makes it fail besides a difference."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.parity import run
from pipeline.parity.case import Case


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A case of system "metrics", kind "square", of two queries."""
    np.savez(tmp_path / "inputs.npz", sim=np.eye(2, dtype=np.float32))
    counts = {
        f"{side}_{what}": np.zeros(2, np.int64)
        for side in ("t2v", "v2t")
        for what in ("greater", "tied")
    }
    np.savez(tmp_path / "outputs.npz", **counts)
    sides = {
        s: {"policies": {}, "expanded_cols": [0, 0], "averaged_rounded": {"R1": 100.0}}
        for s in ("t2v", "v2t")
    }
    write(
        tmp_path,
        {
            "system": "metrics",
            "kind": "square",
            "expected": sides,
            "tolerance": {"metrics": "1e-6"},
        },
    )
    return tmp_path


def write(folder: Path, values: dict) -> None:
    (folder / "case.json").write_text(json.dumps(values))


def change(folder: Path, **values: object) -> run.CaseReport:
    write(folder, json.loads((folder / "case.json").read_text()) | values)
    return run.run_case(Case(folder))


def test_a_whole_case_is_ok(case: Path) -> None:
    report = run.run_case(Case(case))

    assert report.ok, report.faults
    assert len(report.rows) == 8


def test_an_array_without_a_row_fails(case: Path) -> None:
    with np.load(case / "outputs.npz") as recorded:
        np.savez(case / "outputs.npz", **recorded, extra=np.zeros(1), dummy=np.zeros(1))

    assert run.run_case(Case(case)).faults == ["extra: not compared"]


def test_an_expected_value_without_a_row_fails(case: Path) -> None:
    expected = json.loads((case / "case.json").read_text())["expected"]

    report = change(case, expected=expected | {"mean": {"R1": 1.0}})

    assert report.faults == ["expected.mean.R1: not compared"]


def test_a_key_that_nobody_read_fails(case: Path) -> None:
    assert change(case, gap=0.25, note="words may stand anywhere").faults == [
        "case.json gap: not compared"
    ]


def test_a_file_that_nobody_opened_fails(case: Path) -> None:
    (case / "ranks.txt").write_text("1 1")

    assert run.run_case(Case(case)).faults == ["file ranks.txt: not compared"]


def test_an_unknown_kind_fails(case: Path) -> None:
    report = change(case, kind="triangle")

    assert not report.ok
    assert "unknown kind metrics/triangle" in report.faults[0]


def test_an_unknown_system_fails(case: Path) -> None:
    assert "unknown kind" in change(case, system="no-such-system").faults[0]


def test_a_handler_that_raises_fails_its_case_only(case: Path) -> None:
    np.savez(case / "inputs.npz", other=np.eye(2))

    assert run.run_case(Case(case)).faults[0].startswith("KeyError")


def test_a_case_without_rows_fails(case: Path) -> None:
    np.savez(case / "inputs.npz", sim=np.eye(2, dtype=np.float32), query_mask=np.ones(2))
    np.savez(case / "outputs.npz", dummy=np.zeros(1))

    report = change(case, kind="multi_caption_masked", expected={})

    assert report.faults == ["no row was compared"]


def test_object_arrays_are_not_loaded(case: Path) -> None:
    np.savez(case / "inputs.npz", sim=np.array([{}], dtype=object))

    assert "allow_pickle" in run.run_case(Case(case)).faults[0]


def test_cases_are_found_below_any_folder_and_once(case: Path) -> None:
    found = run.find_cases([case.parent, case, case / "case.json"])

    assert [c.folder for c in found if c.folder.resolve() == case.resolve()] == [case]


def test_a_path_without_cases_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recorded case"):
        run.find_cases([tmp_path])


def test_files_of_a_system_are_found_by_name() -> None:
    assert run.handler_files("metrics") == ["metrics.metrics"]
    assert {"dual_encoding.model", "dual_encoding.files"} <= set(run.handler_files("dual-encoding"))
    assert run.handler_files("case") == []
