"""`compare`: two models on the same queries, from score matrices and from results of evaluate."""

import json
from pathlib import Path

import numpy as np
import pytest

import cli
from pipeline.evaluation import results
from pipeline.evaluation.metrics import evaluate

N = 60


def scores(strength: float, seed: int) -> np.ndarray:
    """The same clutter for every model, and a noise of its own on the true items."""
    matrix = np.random.default_rng(0).normal(size=(N, N))
    matrix[np.arange(N), np.arange(N)] += strength + np.random.default_rng(seed).normal(size=N)
    return matrix.astype(np.float32)


def evaluated(folder: Path, matrix: np.ndarray, order: np.ndarray) -> Path:
    """Results as `evaluate` writes them, with captions and videos in this order."""
    matrix = matrix[order][:, order]
    target = np.arange(N)
    found = evaluate(matrix, matrix.T, target)
    name = folder.name
    results.save(
        folder,
        {"checkpoint": name, "results": {"none": found.metrics | {"rerank": "none"}}},
        results.rank_arrays("none", found) | {"target": target},
        results.Gallery(
            checkpoint="",
            split="test",
            video_ids=[f"v{n}" for n in order],
            caption_ids=[f"v{n}#0" for n in order],
            texts=[f"text {n}" for n in order],
            row_of_text=target,
        ),
        {"text": {}, "video": {}},
    )
    return folder


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_better_model_is_told_from_an_equal_one(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, strength, seed in (("weak", 1.5, 1), ("as-weak", 1.5, 2), ("strong", 4.0, 3)):
        np.save(tmp_path / f"{name}.npy", scores(strength, seed))
    weak, as_weak, strong = (tmp_path / f"{n}.npy" for n in ("weak", "as-weak", "strong"))

    code, out, _ = run(capsys, strong, weak, "--json")
    of_strong = json.loads(out)[0]["t2v"]
    first = of_strong["metrics"]["R1"]
    assert code == 0
    assert of_strong["beyond_chance"] and of_strong["p"] < 0.01
    assert first["difference"] == pytest.approx(first["a"] - first["b"])
    assert first["interval"][0] > 0
    assert of_strong["won"] - of_strong["lost"] == pytest.approx(first["difference"] * N / 100)

    code, out, _ = run(capsys, as_weak, weak)
    assert code == 0
    assert "within chance" in out and "A  as-weak.npy" in out

    code, out, _ = run(capsys, weak, as_weak, strong, "--against", "weak.npy")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith(("as-weak", "strong"))]
    assert [("*" in row) for row in rows] == [False, True] * 2
    assert "2 pairs: about 0.1" in out


def test_results_are_compared_query_by_query_in_whatever_order_they_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    order = np.random.default_rng(1).permutation(N)
    np.save(tmp_path / "a.npy", scores(1.5, 1))
    np.save(tmp_path / "b.npy", scores(3.0, 2))
    evaluated(tmp_path / "evaluate" / "a", scores(1.5, 1), np.arange(N))
    evaluated(tmp_path / "evaluate" / "b", scores(3.0, 2), order)

    _, of_matrices, _ = run(capsys, tmp_path / "a.npy", tmp_path / "b.npy", "--json")
    _, of_results, _ = run(capsys, tmp_path / "evaluate", "--json")

    wanted, found = json.loads(of_matrices)[0], json.loads(of_results)[0]
    assert (found["a"], found["b"]) == ("a", "b")
    for side in ("t2v", "v2t"):
        assert (found[side]["won"], found[side]["lost"]) == (
            wanted[side]["won"],
            wanted[side]["lost"],
        )
        assert found[side]["metrics"]["R1"]["a"] == wanted[side]["metrics"]["R1"]["a"]


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "a.npy", np.eye(4))
    np.save(tmp_path / "b.npy", np.eye(5))
    (tmp_path / "empty").mkdir()

    for arguments, code, told in (
        (["a.npy", "b.npy"], 4, "4 and 5 queries"),
        (["a.npy"], 2, "Give a second one"),
        (["empty"], 4, "no results of evaluate"),
        (["a.npy", "a.npy", "--against", "c"], 2, "0 of these models are called 'c'"),
    ):
        paths = [tmp_path / word if "." in word or word == "empty" else word for word in arguments]
        found = run(capsys, *paths)
        assert (found[0], told in found[2]) == (code, True), found
