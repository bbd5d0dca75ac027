"""The prune stage: the published selection, a file that is really smaller, a report that adds
up.
"""

import json
from pathlib import Path

import pytest
import torch

import cli
from models.parts.pruning import masks, prunable
from pipeline.checkpoints.model_file import load_model
from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.errors import ConfigError, DataError
from pipeline.stages.prune import Options, Stage
from tests.evaluation.world import evaluate, world


def prune(out: Path, source: Path | None = None, **options: object) -> dict:
    checkpoint = Artefact("checkpoint", source or world().folder / "train", content="c1")
    run(Stage(Options(**options), {"checkpoint": checkpoint}, out), "prune", jobs=1)
    return json.loads((out / "pruning.json").read_text())


@pytest.mark.parametrize(("weights", "biases"), [(True, False), (False, True), (True, True)])
def test_the_smallest_of_the_pool_are_zero_and_all_else_is_as_before(
    tmp_path, weights, biases
) -> None:
    report = prune(tmp_path, amount=0.5, weights=weights, biases=biases)

    before, after = (load_model(path)[0] for path in (world().folder / "train", tmp_path))
    kept = masks(prunable(before, weights=weights, biases=biases), 0.5)
    expected = {n: v * kept[n] if n in kept else v for n, v in before.state_dict().items()}
    assert all(torch.equal(value, expected[name]) for name, value in after.state_dict().items())
    assert (
        report["pruned"]
        == round(0.5 * report["pool"])
        == sum(int((~mask).sum()) for mask in kept.values())
    )


def test_file_shrinks_with_what_is_pruned(tmp_path) -> None:
    sizes = [
        prune(tmp_path / str(amount), amount=amount)["bytes"] for amount in (0.0, 0.5, 0.9, 1.0)
    ]

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.5 * sizes[0]


def test_report_adds_up(tmp_path) -> None:
    report = prune(tmp_path, amount=0.4, biases=True, reference=40_000)

    zeros = sum(z for module in report["modules"].values() for z, _ in module.values())
    assert report["nonzero"] <= report["parameters"] - zeros
    assert report["pool"] == sum(
        n for module in report["modules"].values() for _, n in module.values()
    )
    assert report["size_ratio"]["nonzero"] == pytest.approx(report["nonzero"] / 40_000, abs=1e-6)
    assert report["size_ratio"]["product"] == pytest.approx(
        0.6 * report["parameters"] / 40_000, abs=1e-6
    )
    assert report["bytes"] == (tmp_path / "checkpoints" / "best.pt").stat().st_size


def test_pruned_checkpoint_says_so_and_is_evaluated_like_any_other(tmp_path) -> None:
    prune(tmp_path / "pruned", amount=0.2)
    checkpoints = [
        *world().inputs["checkpoints"],
        Artefact("checkpoint", tmp_path / "pruned", "f", "c", "prune"),
    ]

    manifest = evaluate(tmp_path / "results", world().inputs | {"checkpoints": checkpoints})

    assert load_model(tmp_path / "pruned")[1].facts["pruned"] == {
        "amount": 0.2,
        "weights": True,
        "biases": False,
    }
    assert set(manifest["summary"]) == {"train", "prune"}
    assert manifest["summary"]["prune"]["none"]["t2v_R10"] > 0


def test_pruning_nothing_changes_no_rank(tmp_path) -> None:
    prune(tmp_path / "pruned", amount=0.0)
    checkpoints = [
        *world().inputs["checkpoints"],
        Artefact("checkpoint", tmp_path / "pruned", "f", "c", "prune"),
    ]

    summary = evaluate(tmp_path / "results", world().inputs | {"checkpoints": checkpoints})[
        "summary"
    ]

    assert summary["prune"] == summary["train"]


def test_pruning_a_pruned_model_again_starts_from_its_zeros(tmp_path) -> None:
    prune(tmp_path / "once", amount=0.3)

    report = prune(tmp_path / "twice", tmp_path / "once", amount=0.3)

    weights = (load_model(tmp_path / name)[0].state_dict() for name in ("once", "twice"))
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))
    assert report["pruned"] == round(0.3 * report["pool"])


@pytest.mark.parametrize("amount", ["30", "-0.1", "1.01", "nan"])
def test_rate_out_of_range_says_what_it_is(tmp_path, capsys, amount) -> None:
    code = cli.main(
        ["prune", "--in", str(world().folder / "train"), "--amount", amount, "--out", str(tmp_path)]
    )

    message = capsys.readouterr().err
    assert code == 2
    assert "prune.amount: " in message
    assert "share of the pool that becomes zero, 0 to 1" in message


def test_nothing_to_prune_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose weights, biases or both"):
        from pipeline import registry

        registry.options(Options, {"amount": 0.1, "weights": False}, "prune")


def test_file_of_another_kind_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="not tvrkit/model") as caught:
        prune(tmp_path, world().folder / "train" / "checkpoints" / "last.pt", amount=0.1)

    assert caught.value.fix
