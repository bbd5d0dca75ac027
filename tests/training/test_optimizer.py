"""Update rules against plain loops; which parameters train, in which groups; averages and
limits.
"""

import math

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.recipes.freeze import freeze
from pipeline.recipes.options import (
    EmaOptions,
    FreezeOptions,
    OptimizerOptions,
    ParameterRule,
    TemperatureOptions,
)
from pipeline.training import optimizer


class Toy(nn.Module):
    """Names as in the CLIP systems."""

    def __init__(self):
        super().__init__()
        self.clip = nn.ModuleDict({"proj": nn.Linear(3, 3), "ln_1": nn.LayerNorm(3)})
        self.head = nn.Linear(3, 2)
        self.logit_scale = nn.Parameter(torch.tensor(4.0))


def gradients(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, generator=generator) for _ in range(steps)]


def updated(name: str, lr: float = 0.1, decay: float = 0.2, steps: int = 4) -> torch.Tensor:
    """A parameter of ones after some steps of our optimizer."""
    parameter = nn.Parameter(torch.ones(4, 3))
    options = OptimizerOptions(name=name, lr=lr, betas=(0.9, 0.98), eps=1e-6)
    rule = optimizer.build(optimizer.parameter_groups([("w", parameter)], [], decay), options)
    for gradient in gradients(steps):
        parameter.grad = gradient.clone()
        optimizer.set_lr(rule, lr)
        rule.step()
    return parameter.detach()


def plain(name: str, lr: float = 0.1, decay: float = 0.2, steps: int = 4) -> torch.Tensor:
    """The same in float64 loops, from the formulas."""
    p, m, v = torch.ones(4, 3, dtype=torch.float64), 0.0, 0.0
    for t, g in enumerate(gradients(steps), start=1):
        g = g.double() + (decay * p if name == "adam" else 0)
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        if name == "bertadam":
            p = p - lr * (m / (v.sqrt() + 1e-6) + decay * p)
            continue
        step = (m / (1 - 0.9**t)) / ((v / (1 - 0.98**t)).sqrt() + 1e-6)
        p = p * (1 - lr * decay if name == "adamw" else 1) - lr * step
    return p.float()


@pytest.mark.parametrize("name", ["adam", "adamw", "bertadam"])
def test_update_equals_the_formula(name):
    assert torch.allclose(updated(name), plain(name), atol=1e-6)  # float32 sums of four steps


def test_bertadam_leaves_parameters_without_gradient_alone():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    rule = optimizer.BertAdam([{"params": [used, unused], "lr_scale": 1.0}], lr=0.1)
    used.grad = torch.ones(2)

    rule.step()

    assert torch.equal(unused, torch.ones(2))
    assert len(rule.state) == 1


def test_bertadam_moves_a_temperature_by_the_published_order_of_sums():
    scale, lr, decay = nn.Parameter(torch.tensor(4.6)), 2.4e-6, 0.2
    rule = optimizer.BertAdam([{"params": [scale], "lr_scale": 1.0, "weight_decay": decay}], lr=lr)
    scale.grad = torch.tensor(0.5)

    rule.step()

    m, v = torch.tensor(0.5) * 0.1, torch.tensor(0.5).square() * 0.02
    expected = torch.tensor(4.6) - lr * (m / (v.sqrt() + 1e-6) + decay * torch.tensor(4.6))
    assert scale.item() == expected.item()  # the last digit: a step is no more than that


def test_each_tensor_is_clipped_to_its_own_norm():
    large, small = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    large.grad, small.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])

    optimizer.clip_per_tensor([large, small], 1.0)

    assert torch.allclose(large.grad, torch.tensor([0.6, 0.8]))
    assert torch.allclose(small.grad, torch.tensor([0.3, 0.4]))


def test_first_rule_wins_for_each_key_it_names():
    rules = [
        ParameterRule(match="bias", weight_decay=0),
        ParameterRule(match=r"^clip\.", lr_scale=1e-3),
    ]
    rules += [ParameterRule(match="bias", lr_scale=5, weight_decay=9)]

    groups = optimizer.parameter_groups(Toy().named_parameters(), rules, 0.2)

    found = {name: (g["lr_scale"], g["weight_decay"]) for g in groups for name in g["names"]}
    assert found["clip.proj.weight"] == found["clip.ln_1.weight"] == (1e-3, 0.2)
    assert found["clip.proj.bias"] == found["clip.ln_1.bias"] == (1e-3, 0)
    assert found["head.weight"] == found["logit_scale"] == (1.0, 0.2)
    assert found["head.bias"] == (5, 0)


def test_rule_that_matches_nothing_is_refused_with_names_to_choose_from():
    with pytest.raises(ConfigError, match="clip.proj.weight"):
        optimizer.parameter_groups(
            Toy().named_parameters(), [ParameterRule(match="visul", lr_scale=0.1)], 0
        )


def test_schedule_reaches_every_group():
    rules = [ParameterRule(match=r"^clip\.", lr_scale=1e-3)]
    groups = optimizer.parameter_groups(Toy().named_parameters(), rules, 0)
    rule = optimizer.build(groups, OptimizerOptions(lr=1))

    optimizer.set_lr(rule, 0.5)

    assert [group["lr"] for group in rule.param_groups] == [
        0.5,
        0.5e-3,
    ]  # logit_scale and head, clip


def test_frozen_parameters_are_neither_trained_nor_in_a_group():
    model = Toy()
    options = FreezeOptions(match=r"^clip\.", exceptions=["proj.bias"], norms_in_eval_mode=True)

    still = freeze(model, options)

    names = [
        n for g in optimizer.parameter_groups(model.named_parameters(), [], 0) for n in g["names"]
    ]
    assert names == ["logit_scale", "clip.proj.bias", "head.weight", "head.bias"]
    assert still == [model.clip["ln_1"]]


def test_temperature_stays_within_its_limits():
    model = Toy()
    limits = optimizer.TemperatureLimits(model, TemperatureOptions(min=0.1))
    for value, kept in ((9.0, math.log(100)), (-1.0, 0.1), (2.0, 2.0)):
        model.logit_scale.data.fill_(value)

        limits.apply()

        assert model.logit_scale.item() == pytest.approx(kept)


def test_average_follows_weights_and_copies_buffers():
    model = nn.BatchNorm1d(2)
    ema = optimizer.Ema(model, EmaOptions(moment=0.75))
    model.weight.data.fill_(5.0)
    model.running_mean.fill_(7.0)

    ema.update(model)

    assert torch.allclose(ema.weights["weight"], torch.full((2,), 2.0))  # 0.75 * 1 + 0.25 * 5
    assert torch.equal(ema.weights["running_mean"], torch.full((2,), 7.0))


def test_rmsprop_divides_by_the_root_of_the_mean_square():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    rule = optimizer.build(
        [{"params": [weight], "names": ["w"]}], OptimizerOptions(name="rmsprop", lr=0.1)
    )
    weight.grad = torch.tensor([3.0, -0.5])

    rule.step()

    # mean square after one step: 0.01 g^2, so each entry moves by lr / sqrt(0.01) = 1 against its
    # gradient
    assert torch.allclose(weight.detach(), torch.tensor([0.0, -1.0]), atol=1e-5)
