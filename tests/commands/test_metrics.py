"""The metrics command: a table, or JSON alone on stdout; bad matrices are refused with the right exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

import cli


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["metrics", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def saved(folder: Path, matrix: np.ndarray) -> Path:
    np.save(folder / "s.npy", matrix)
    return folder / "s.npy"


def test_json_is_alone_on_stdout_and_in_the_documented_shape(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, saved(tmp_path, np.eye(20)), "--json")

    values = json.loads(out)
    assert code == 0
    assert (
        values["t2v"] | {"R1": 100.0, "R5": 100.0, "R10": 100.0, "R50": 100.0, "MdR": 1.0, "MnR": 1.0} == values["t2v"]
    )
    assert (values["n"], values["tie_policy"], values["tied"]) == (20, "pessimistic", 0)


def test_table_has_a_line_each_way(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _, out, _ = run(capsys, saved(tmp_path, np.eye(20)), "--map")

    assert "text -> video     100.0" in out
    assert "1.0000" in out


def test_real_matrix_gives_the_published_numbers(shared: Path, capsys: pytest.CaptureFixture) -> None:
    matrix = shared / "data" / "annotations" / "msrvtt" / "msrvtt_vit16_sim_matrix.npy"

    _, out, _ = run(capsys, matrix, "--json", "--ties", "expanded")

    values = json.loads(out)
    assert values["t2v"]["R1"] == 48.0
    assert values["v2t"]["n"] == 1012  # nine captions of the test split are not unique


def test_qbnorm_takes_its_bank_from_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "bank.npy", rng.random((50, 20)))

    _, out, _ = run(
        capsys,
        saved(tmp_path, rng.random((20, 20))),
        "--rerank",
        "qbnorm",
        "--bank-t2v",
        tmp_path / "bank.npy",
        "--json",
    )

    assert json.loads(out)["rerank"] == "qbnorm (t2v)"


def test_nan_is_an_error_unless_asked_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    matrix = np.eye(20)
    matrix[3, 3] = np.nan
    path = saved(tmp_path, matrix)

    assert run(capsys, path)[0] == 4
    code, out, _ = run(capsys, path, "--nan", "lowest", "--json")
    assert code == 0
    assert json.loads(out)["nan"] == 1
    assert json.loads(out)["t2v"]["R1"] == 95.0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--rerank", "qbnorm"], 2), (["--ks", "1,x"], 2), (["--captions-per-video", "3"], 4), (["--ties", "random"], 2)],
)
def test_wrong_arguments_have_their_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], code: int
) -> None:
    assert run(capsys, saved(tmp_path, np.eye(20)), *arguments)[0] == code


@pytest.mark.parametrize("content", [b"", b"text", np.lib.format.magic(1, 0)])
def test_files_that_are_no_matrix_end_with_4(tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes) -> None:
    (tmp_path / "s.npy").write_bytes(content)

    code, out, err = run(capsys, tmp_path / "s.npy")

    assert (code, out) == (4, "")
    assert "not a usable .npy" in err


def test_missing_file_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(capsys, tmp_path / "none.npy")[0] == 4
