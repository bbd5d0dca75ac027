"""The parity command: rows, verdicts, exit codes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cli


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["parity", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def case(golden: Path, tmp_path: Path) -> Path:
    """A copy of a recorded case, to be changed."""
    return Path(
        shutil.copytree(
            golden / "metrics" / "square_ties", tmp_path / "case", copy_function=shutil.copyfile
        )
    )


def test_equal_numbers_end_with_0_and_a_row_each(case: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, case)

    assert code == 0
    assert "case | array | max abs diff | tolerance | ok" in out
    assert "| t2v_greater | 0 | 0 | ok" in out


def test_a_wrong_number_ends_with_1(case: Path, capsys: pytest.CaptureFixture) -> None:
    with np.load(case / "outputs.npz") as recorded:
        arrays = dict(recorded)
    np.savez(case / "outputs.npz", **arrays | {"t2v_greater": arrays["t2v_greater"] + 1})

    code, out, _ = run(capsys, case)

    assert code == 1
    assert "| t2v_greater | 1 | 0 | FAIL" in out


def test_json_has_every_row(case: Path, capsys: pytest.CaptureFixture) -> None:
    _, out, _ = run(capsys, case, "--json")

    report = json.loads(out)
    assert report["ok"] is True
    assert report["rows"] == len(report["cases"][0]["rows"])


def test_a_folder_without_cases_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(capsys, tmp_path)[0] == 4


def test_every_recorded_case_of_metrics_agrees(golden: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, err = run(capsys, golden / "metrics")

    assert code == 0, out + err


@pytest.mark.parametrize("name", ["bigfile", "metrics-multicaption", "metrics-ties"])
def test_recorded_files_and_fused_scores_agree(
    golden: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    code, out, err = run(capsys, golden / "dual-encoding" / name)

    assert code == 0, out + err
