"""The GRU of our own against torch's."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from models.dual_encoding.recurrence import run_gru

LENGTHS = {"of_all_lengths": [5, 5, 3, 2, 1], "equal": [4, 4, 4], "one_step": [1, 1], "one": [6]}


def both_ways(
    bidirectional: bool, lengths: list[int], dtype: torch.dtype = torch.float64
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients (of inputs, then of parameters) of our way and of torch's."""
    torch.manual_seed(0)
    gru = nn.GRU(7, 6, bidirectional=bidirectional).to(dtype)
    counts = torch.tensor(lengths)
    batch_sizes = torch.stack([(counts > time).sum() for time in range(lengths[0])])
    packed = torch.randn(sum(lengths), 7, dtype=dtype, requires_grad=True)
    inputs = [packed, *gru.parameters()]
    found = []
    for outputs in (
        run_gru(gru, packed, batch_sizes),
        gru(PackedSequence(packed, batch_sizes))[0].data,
    ):
        back = torch.linspace(-1, 1, outputs.numel(), dtype=dtype).view_as(outputs)
        found.append([outputs, *torch.autograd.grad(outputs, inputs, back)])
    return found[0], found[1]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_outputs_and_gradients_are_those_of_torch(bidirectional: bool, lengths: list[int]) -> None:
    ours, expected = both_ways(bidirectional, lengths)

    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_a_frozen_gru_passes_gradients_on_and_gets_none() -> None:
    gru = nn.GRU(7, 6).requires_grad_(False)
    packed = torch.randn(4, 7, requires_grad=True)

    run_gru(gru, packed, torch.tensor([2, 2])).sum().backward()

    assert packed.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in gru.parameters())


def test_half_precision_stays_with_torch() -> None:
    gru = nn.GRU(7, 6)
    packed = torch.randn(4, 7)
    batch_sizes = torch.tensor([2, 2])

    with torch.autocast("cpu", torch.bfloat16):
        found = run_gru(gru, packed, batch_sizes)
        expected = gru(PackedSequence(packed, batch_sizes))[0].data

    assert torch.equal(found, expected)
