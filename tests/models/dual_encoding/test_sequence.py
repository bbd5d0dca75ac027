import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.dual_encoding.sequence import Kernel, SequenceEncoder, Steps, _dense_peaks, _Peaks

LENGTHS = torch.tensor([3, 9, 1, 6, 9, 2] + [4, 5] * 20)  # two chunks
MASK = torch.arange(11) < LENGTHS[:, None]  # longer than any sequence


def _encoder(padding: str = "same") -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(5, 4, True, [(2, 3), (3, 4), (4, 2), (5, 3)], padding).double()


def _values() -> torch.Tensor:
    values = torch.randn(
        len(LENGTHS), 11, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return values * MASK[..., None]


def _run(
    encoder: SequenceEncoder, values: torch.Tensor, mask: torch.Tensor, masked: bool
) -> torch.Tensor:
    steps = Steps.of(mask, encoder.kernels, masked)
    pool = "mean" if masked else "padded_mean"
    return torch.cat(encoder(values.flatten(0, 1)[steps.source], steps, pool), 1)


def _published(encoder: SequenceEncoder, values: torch.Tensor) -> torch.Tensor:
    """Packed GRU, mean over the padded length, "same" convolutions over the padding."""
    encoder.gru.batch_first = True
    packed = pack_padded_sequence(values, LENGTHS, batch_first=True, enforce_sorted=False)
    hidden, _ = pad_packed_sequence(
        encoder.gru(packed)[0], batch_first=True, total_length=values.shape[1]
    )
    parts = [hidden.sum(1) / values.shape[1]]
    for conv, kernel in zip(encoder.convs, encoder.kernels, strict=True):
        rows = F.pad(hidden.transpose(1, 2), (kernel.before, kernel.after))
        parts.append(F.relu(F.conv1d(rows, conv.weight, conv.bias)).amax(2))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("padding", ["same", "full"])
def test_padded_pooling_is_the_published_computation(padding):
    encoder, values = _encoder(padding), _values()

    torch.testing.assert_close(_run(encoder, values, MASK, False), _published(encoder, values))


@pytest.mark.parametrize("padding", ["same", "full"])
def test_padded_and_masked_pooling_agree_where_there_is_no_padding(padding):
    encoder, values = _encoder(padding), _values()
    alone = [
        _run(encoder, v[None, :n], MASK[:1, :1].expand(1, n), False)
        for v, n in zip(values, LENGTHS, strict=True)
    ]

    torch.testing.assert_close(_run(encoder, values, MASK, True), torch.cat(alone))


@pytest.mark.parametrize("masked", [True, False])
def test_gradients_are_those_of_the_dense_computation(masked):
    encoder, values = _encoder(), _values()
    steps = Steps.of(MASK, encoder.kernels, masked)
    hidden = encoder.hidden(values.flatten(0, 1)[steps.source], steps).detach().requires_grad_()
    table = steps.table(hidden)
    weights = [conv.weight for conv in encoder.convs]
    peaks = [
        peaks(table, steps, encoder.kernels, *weights) for peaks in (_Peaks.apply, _dense_peaks)
    ]
    factor = torch.randn(
        peaks[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )

    ours, dense = (
        torch.autograd.grad((p * factor).sum(), [hidden, *weights], retain_graph=True)
        for p in peaks
    )

    torch.testing.assert_close(peaks[0], peaks[1])
    for a, b in zip(ours, dense, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_filters_get_no_gradient_and_still_pass_it_on():
    encoder, values = _encoder(), _values()
    for conv in encoder.convs:
        conv.requires_grad_(False)

    _run(encoder, values, MASK, True).sum().backward()

    assert encoder.gru.weight_ih_l0.grad.abs().sum() > 0
    assert all(conv.weight.grad is None for conv in encoder.convs)


def test_a_sequence_without_steps_counts_as_one_step_of_zeros():
    encoder, values = _encoder(), _values()[:2]
    empty = torch.zeros(2, 11, dtype=torch.bool)

    encoded = _run(encoder, values * 0, empty, True)

    torch.testing.assert_close(encoded, _run(encoder, values * 0, MASK[2:3].expand(2, -1), True))


def test_even_kernels_have_their_odd_zero_behind() -> None:
    same = [Kernel.of(width, "same") for width in (1, 2, 3, 4, 5)]

    assert [(k.before, k.after) for k in same] == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    assert Kernel.of(4, "full") == Kernel(4, 3, 3)


@pytest.mark.parametrize("masked", [True, False])
def test_the_maximum_over_time_sees_the_zeros_of_padding_only_if_asked(masked: bool) -> None:
    values = _values() - 5
    steps = Steps.of(MASK[:, :9], _encoder().kernels, masked)

    ours = steps.restore(steps.maximum(values[:, :9].flatten(0, 1)[steps.source]))

    ends = (
        values[i, :n].amax(0).clamp(min=0 if n < 9 and not masked else -99)
        for i, n in enumerate(LENGTHS)
    )
    torch.testing.assert_close(ours, torch.stack(list(ends)))
