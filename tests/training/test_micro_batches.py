"""A batch encoded in parts has the gradient of the whole; the systems are asked in
test_contract.
"""

import contextlib

import pytest
import torch
from torch import Tensor, nn

from models.base import RetrievalModel
from pipeline.errors import ConfigError
from pipeline.feeding.loader import Batch
from pipeline.processes import World
from pipeline.recipes.options import TrainOptions
from pipeline.training.micro_batches import InParts
from pipeline.training.step import Stepper
from tests.training import toy

CPU = torch.device("cpu")


class Noisy(RetrievalModel):
    """Drops numbers in its encoders and draws in its loss; what both encoders share trains too."""

    def __init__(self, dropout: float = 0.5):
        super().__init__()
        torch.manual_seed(1)
        self.prompt = nn.Parameter(torch.randn(6))
        self.text = nn.Linear(6, 4)
        self.video = nn.Linear(6, 4)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.dropout = nn.Dropout(dropout)
        self.drawn: list[float] = []

    def prepare(self) -> dict[str, Tensor]:
        return {"prompt": self.prompt.tanh()}

    def encode_text(self, batch, shared=None) -> dict[str, Tensor]:
        return {"x": self.dropout(self.text(batch["text"] + shared["prompt"]))}

    def encode_video(self, batch, shared=None) -> dict[str, Tensor]:
        real = torch.ones(len(batch["frames"]), dtype=torch.bool)
        return {"x": self.dropout(self.video(batch["frames"] * shared["prompt"])), "real": real}

    def loss(self, text, video, batch) -> dict[str, Tensor]:
        self.drawn.append(float(torch.rand(())))
        own = torch.arange(len(text["x"]))
        scores = self.logit_scale.exp() * text["x"] @ video["x"].T
        both = nn.functional.cross_entropy(scores, own) + nn.functional.cross_entropy(scores.T, own)
        return {"contrast": both, "loss": both}


def batch(n: int = 7) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(2)
    return {name: torch.randn(n, 6, generator=random) for name in ("text", "frames")}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def in_parts(model: Noisy, n_pairs: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(0)
    parts = InParts(model, batch(), n_pairs, contextlib.nullcontext)
    parts.backward(parts.losses["loss"])
    return gradients(model)


def stepper(model: nn.Module, **train: object) -> Stepper:
    options = TrainOptions(optimizer={"name": "adam", "lr": 0.1}, grad_clip=None, **train)
    return Stepper(model, model, options, CPU, World())


def test_a_part_draws_the_same_numbers_when_it_is_read_again():
    model, one_graph = Noisy(), Noisy()

    found = in_parts(model)

    torch.manual_seed(0)
    shared, given = one_graph.prepare(), batch()
    rows = [slice(0, 3), slice(3, 6), slice(6, 9)]
    parts = [{name: value[part] for name, value in given.items()} for part in rows]
    text = torch.cat([one_graph.encode_text(part, shared)["x"] for part in parts])
    video = torch.cat([one_graph.encode_video(part, shared)["x"] for part in parts])
    one_graph.loss({"x": text}, {"x": video}, given)["loss"].backward()
    torch.testing.assert_close(found, gradients(one_graph), atol=1e-6, rtol=1e-5)


def test_two_runs_in_parts_are_equal_bit_for_bit():
    first, second = in_parts(Noisy()), in_parts(Noisy())

    assert all(torch.equal(second[name], grad) for name, grad in first.items())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "amp"])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(precision):
    whole, parts = Noisy(dropout=0), Noisy(dropout=0)
    given = [Batch(batch(), ["a"]), Batch(batch(), ["a"])]

    torch.manual_seed(0)
    expected = stepper(whole, precision=precision)(iter(given), 2, lr=0)
    torch.manual_seed(0)
    found = stepper(parts, precision=precision, micro_batch=3)(iter(given), 2, lr=0)

    close = {"float32": 1e-6, "bfloat16": 2e-2, "amp": 2e-3}[precision]  # the step of its numbers
    assert found.terms == pytest.approx(expected.terms, rel=close)
    assert found.grad_norm == pytest.approx(expected.grad_norm, rel=close)
    torch.testing.assert_close(gradients(parts), gradients(whole), atol=close, rtol=close)
    assert parts.drawn == whole.drawn and len(set(parts.drawn)) == 2


def test_frozen_encoders_are_not_read_again():
    model = Noisy()
    for part in (model.text, model.video):
        part.requires_grad_(False)
    model.prompt.requires_grad_(False)
    calls = []
    model.dropout.register_forward_hook(lambda *_: calls.append(1))

    found = in_parts(model)

    assert found["logit_scale"] is not None
    assert len(calls) == 2 * 3 + 2  # one part of each side is enough to see it


def test_a_loss_that_is_not_finite_sends_nothing_back():
    model = Noisy()
    broken = batch()
    broken["text"][4] = torch.inf

    with pytest.raises(Exception, match="the loss is nan"):
        stepper(model, micro_batch=2)(iter([Batch(broken, ["a"])]), 1, lr=1)

    assert all(grad is None for grad in gradients(model).values())


def test_batch_norms_that_train_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="batch norms.*: latent.video.norm, .*more") as caught:
        toy.trainer(tmp_path, micro_batch=4)

    assert "norms_in_eval_mode" in caught.value.fix
