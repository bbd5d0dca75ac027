"""One step: accumulation, clipping, precision, random numbers, and losses that are not finite."""

import pytest
import torch
from torch import nn

from pipeline.feeding.loader import Batch
from pipeline.processes import World
from pipeline.recipes.options import TrainOptions
from pipeline.training.step import NotFinite, Stepper, precision, seed_step

CPU = torch.device("cpu")


class Line(nn.Module):
    """Loss = w * mean of x: the gradient of w is the mean of the batch."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, batch: dict) -> dict:
        value = (self.w * batch["x"]).mean() + 0 * self.norm(batch["x"][:, None]).sum()
        return {"line": value, "loss": value}


def stepper(model: nn.Module, **train) -> Stepper:
    values = {
        "optimizer": {"name": "bertadam", "lr": 1.0, "betas": (0.0, 0.0), "eps": 1e-12},
        "grad_clip": None,
    } | train
    return Stepper(model, model, TrainOptions(**values), CPU, World())


def batches(*means: float):
    return iter(
        [Batch({"x": torch.tensor([mean - 1.0, mean + 1.0])}, [f"video{mean}"]) for mean in means]
    )


def test_accumulated_gradient_is_the_mean_of_all_batches():
    model = Line()
    step = stepper(model, optimizer={"name": "adam", "lr": 1.0})

    result = step(batches(1, 2, 3, 4), 4, lr=0.0)

    assert model.w.grad.item() == pytest.approx(2.5)  # the published accumulation gives 1.0
    assert result.grad_norm == pytest.approx(2.5)


def test_whole_gradient_is_clipped_before_the_update():
    model = Line()

    result = stepper(model, grad_clip=2.0)(batches(8), 1, lr=0.0)

    assert result.grad_norm == pytest.approx(8)
    assert model.w.grad.item() == pytest.approx(2, rel=1e-5)


def test_small_gradient_is_not_scaled():
    model = Line()

    stepper(model, grad_clip=2.0)(batches(1.5), 1, lr=0.0)

    assert model.w.grad.item() == 1.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_loss_that_is_not_finite_changes_nothing_and_names_the_videos(bad, place):
    model = Line()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    means, taken = [1.0, 1.0], []
    means[place] = bad
    stream = (taken.append(1) or batch for batch in batches(*means))

    with pytest.raises(NotFinite, match="the loss is") as caught:
        stepper(model, non_finite="skip")(stream, 2, lr=1.0)

    assert caught.value.video_ids == [f"video{bad}"]
    assert len(taken) == 2  # the whole step is used up, so the next one starts where it would have
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_gradient_that_is_not_finite_stops_the_step_too():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return {"loss": self.w.sqrt().sum()}  # value 0, slope infinite

    with pytest.raises(NotFinite, match="norm is"):
        stepper(Root())(batches(1), 1, lr=1.0)


def test_random_numbers_are_a_function_of_seed_step_and_rank():
    def draw(*key):
        seed_step(*key)
        return torch.rand(3).tolist()

    assert draw(1, 5, 0) == draw(1, 5, 0)
    assert len({tuple(draw(*key)) for key in [(1, 5, 0), (2, 5, 0), (1, 6, 0), (1, 5, 1)]}) == 4


@pytest.mark.parametrize(("device", "wanted", "found"), [
    ("cpu", "auto", "float32"), ("cuda", "auto", "bfloat16"), ("cuda", "float32", "float32"), ("cuda", "amp", "amp"),
])  # fmt: skip
def test_auto_precision_depends_on_the_device(device, wanted, found):
    options = TrainOptions(optimizer={"lr": 1}, precision=wanted)

    assert precision(options, torch.device(device)) == found


@pytest.mark.parametrize("kind", ["bfloat16", "amp"])
def test_low_precision_keeps_float32_weights_and_takes_a_step(kind):
    model = Line()

    stepper(model, precision=kind)(batches(1), 1, lr=0.5)

    assert model.w.dtype == torch.float32
    assert model.w.item() == pytest.approx(
        -0.5, abs=0.02
    )  # bertadam with betas 0: a step of lr against the sign
