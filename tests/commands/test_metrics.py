"""The metrics command: a table, or JSON alone on stdout; bad matrices are refused with the right
exit code.
"""

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


def test_json_is_alone_on_stdout_and_in_the_documented_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, out, _ = run(capsys, saved(tmp_path, np.eye(20)), "--json")

    values = json.loads(out)
    assert code == 0
    assert (
        values["t2v"]
        | {
            "R1": 100.0,
            "R5": 100.0,
            "R10": 100.0,
            "R50": 100.0,
            "MdR": 1.0,
            "MnR": 1.0,
        }
        == values["t2v"]
    )
    assert (values["n"], values["tie_policy"], values["tied"]) == (20, "pessimistic", 0)


def test_table_has_a_line_each_way(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _, out, _ = run(capsys, saved(tmp_path, np.eye(20)), "--map")

    assert "text -> video     100.0" in out
    assert "1.0000" in out


def test_real_matrix_gives_the_published_numbers(
    shared: Path, capsys: pytest.CaptureFixture
) -> None:
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


def test_nan_is_an_error_unless_asked_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
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
    [
        (["--rerank", "qbnorm"], 2),
        (["--ks", "1,x"], 2),
        (["--captions-per-video", "3"], 4),
        (["--ties", "random"], 2),
    ],
)
def test_wrong_arguments_have_their_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], code: int
) -> None:
    assert run(capsys, saved(tmp_path, np.eye(20)), *arguments)[0] == code


@pytest.mark.parametrize("content", [b"", b"text", np.lib.format.magic(1, 0)])
def test_files_that_are_no_matrix_end_with_4(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes
) -> None:
    (tmp_path / "s.npy").write_bytes(content)

    code, out, err = run(capsys, tmp_path / "s.npy")

    assert (code, out) == (4, "")
    assert "not a usable .npy" in err


def test_missing_file_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(capsys, tmp_path / "none.npy")[0] == 4


def searched(
    folder: Path, capsys: pytest.CaptureFixture, *arguments: object
) -> tuple[int, str, str]:
    """A matrix and a bank where one video is among the best of everything, so that normalising
    helps.
    """
    rng = np.random.default_rng(0)
    hub = np.where(np.arange(20) == 3, 1.5, 0)
    np.save(folder / "bank.npy", rng.random((50, 20)) + hub)
    matrix = saved(folder, np.eye(20) + rng.random((20, 20)) + hub)
    return run(capsys, matrix, "--rerank", "qbnorm", "--bank-t2v", folder / "bank.npy", *arguments)


def test_beta_search_keeps_the_first_beta_with_the_best_recall(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, out, _ = searched(tmp_path, capsys, "--search-beta", "0.5:3:0.5", "--json")

    values = json.loads(out)
    recalls = {row["beta"]: row["t2v_R1"] for row in values["tried"]}
    assert code == 0
    assert list(recalls) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert values["beta"] == min(
        beta for beta, recall in recalls.items() if recall == max(recalls.values())
    )
    assert values["t2v"]["R1"] == recalls[values["beta"]]


def test_a_beta_found_gives_the_same_when_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    best = json.loads(searched(tmp_path, capsys, "--search-beta", "1:20:1", "--json")[1])

    given = json.loads(searched(tmp_path, capsys, "--beta", best["beta"], "--json")[1])

    assert (given["t2v"], given["v2t"]) == (best["t2v"], best["v2t"])


@pytest.mark.parametrize("asked", ["0.5", "1:0.5:0.1", "0.5:1:0", "a:b:c", "0.1:1:1e-9", "1:inf:1"])
def test_what_is_no_range_of_betas_is_refused(
    asked: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, _, err = searched(tmp_path, capsys, "--search-beta", asked)

    assert code == 2
    assert "--search-beta" in err


def test_beta_search_without_qbnorm_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, _, err = run(capsys, saved(tmp_path, np.eye(4)), "--search-beta", "0.5:1:0.1")

    assert code == 2
    assert "Add --rerank qbnorm" in err


def test_each_direction_may_have_its_own_theta(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    np.save(tmp_path / "v2t.npy", np.eye(20)[[0, 0, 1]])

    both = [
        json.loads(
            searched(tmp_path, capsys, "--bank-v2t", tmp_path / "v2t.npy", "--json", *more)[1]
        )["v2t"]
        for more in ([], ["--theta-v2t", "9"])
    ]

    assert both[0] != both[1]


def test_a_bank_of_videos_may_be_saved_as_dgl_does(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    case = np.load(golden / "dgl/qb_norm/inputs.npz"), np.load(golden / "dgl/qb_norm/outputs.npz")
    for name in ("train_test_t2v", "train_test_v2t", "sim_matrix"):
        np.save(tmp_path / f"{name}.npy", case[0][name])
    asked = [
        tmp_path / "sim_matrix.npy",
        "--rerank",
        "qbnorm",
        "--bank-t2v",
        tmp_path / "train_test_t2v.npy",  # fmt: skip
        "--bank-v2t",
        tmp_path / "train_test_v2t.npy",
        "--theta",
        2,
        "--search-beta",
        "0.5:1:0.01",
    ]

    code, _, err = run(capsys, *asked)
    found = json.loads(run(capsys, *asked, "--bank-v2t-transposed", "--json")[1])

    assert (code, "--bank-v2t-transposed" in err) == (4, True)
    assert found["beta"] == pytest.approx(
        float(case[1]["best_beta"]), abs=1e-9
    )  # recorded by adding up
    assert found["t2v"]["R1"] == case[1]["best_r1"]
