from pathlib import Path

import pytest
import torch
from torch import nn

from models.base import Mismatch
from models.parts.pruning import masks, prunable, prune, sparsity
from pipeline.parity.case import Case
from pipeline.parity.run import run_case


def _model() -> nn.Module:
    torch.manual_seed(0)
    layers = {
        "words": nn.Embedding(5, 4),
        "gru": nn.GRU(4, 3),
        "conv": nn.Conv1d(3, 2, 2),
        "norm": nn.BatchNorm1d(2),
    }
    return nn.ModuleDict(layers | {"head": nn.Linear(2, 6)})


@pytest.mark.parametrize("name", ["prune-w", "prune-wb"])
def test_recorded_cases(name: str, golden: Path) -> None:
    folder = golden / "dual-encoding" / name
    if not folder.exists():
        pytest.skip("only beside the project")

    report = run_case(Case(folder))

    assert [row for row in report.rows if not row.ok] == []
    assert report.faults == []


def test_recurrent_convolutional_and_linear_layers_share_the_pool_and_nothing_else() -> None:
    weights, both = prunable(_model()), prunable(_model(), biases=True)

    assert list(weights) == ["gru.weight_ih_l0", "gru.weight_hh_l0", "conv.weight", "head.weight"]
    assert both.keys() - weights.keys() == {
        "gru.bias_ih_l0",
        "gru.bias_hh_l0",
        "conv.bias",
        "head.bias",
    }


def test_the_smallest_of_the_whole_pool_become_zero_and_the_rest_stays() -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pool = torch.cat([before[name].abs().flatten() for name in prunable(model)]).sort().values
    n = round(0.4 * len(pool))

    prune(model, 0.4)

    zeros = {
        name: count
        for name, (count, _) in sparsity(model.state_dict()).items()
        if name in prunable(model)
    }
    assert sum(zeros.values()) == n
    for name in zeros:
        gone = model.state_dict()[name] == 0
        assert (before[name][gone].abs() <= pool[n - 1]).all()
        assert torch.equal(model.state_dict()[name][~gone], before[name][~gone])
    assert torch.equal(model.state_dict()["words.weight"], before["words.weight"])


@pytest.mark.parametrize(("rate", "pruned"), [(0.0, 0), (0.25, 2), (0.3125, 2), (1.0, 8)])
def test_the_count_is_exact_even_if_all_magnitudes_tie(rate: float, pruned: int) -> None:
    kept = masks({"a": torch.ones(2, 2), "b": -torch.ones(4)}, rate)

    assert sum(int((~mask).sum()) for mask in kept.values()) == pruned
    assert torch.cat([kept["a"].flatten(), kept["b"]]).tolist() == [False] * pruned + [True] * (
        8 - pruned
    )


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_other_rates_are_refused(rate: float) -> None:
    with pytest.raises(Mismatch, match="rate"):
        prune(_model(), rate)


def test_there_must_be_something_to_prune() -> None:
    with pytest.raises(Mismatch, match="nothing"):
        prune(_model(), 0.1, weights=False)
