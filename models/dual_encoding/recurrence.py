"""A GRU over packed steps on a CPU: the values of `torch.nn.GRU`, in less than half of its time.

torch slices the projected inputs at every step, and the backward of each slice fills a tensor as
large as all steps with zeros: the cost grows with the square of the length. Here a step reads and
writes its own rows, and the gradients of the weights are one product over all steps.

Source: torch.nn.GRU (the equations of Cho et al. 2014 with the reset gate behind the product).

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r (W_hn h + b_hn))
    h' = n + z (h - n)
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence

from models.parts.matmul import linear


class _Step(NamedTuple):
    """Rows start:end of the packed steps, and where the step before them has its rows.

    Only the first `known` rows have a step before them; the others start from zeros.
    """

    start: int
    end: int
    before: int
    known: int


def run_gru(gru: nn.GRU, packed: Tensor, batch_sizes: Tensor) -> Tensor:
    """Return the outputs (N, H), or (N, 2H) in both directions, of packed steps (N, F).

    batch_sizes (longest,) int64: as in a PackedSequence. A GPU, half precision and compiled graphs
    take torch's own way.
    """
    is_plain = packed.device.type == "cpu" and packed.dtype == gru.weight_ih_l0.dtype
    if not is_plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return gru(PackedSequence(packed, batch_sizes))[0].data
    directions = ["", "_reverse"] if gru.bidirectional else [""]
    outputs = []
    for suffix in directions:
        weights = [
            getattr(gru, f"{name}_l0{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        steps = _steps(batch_sizes.tolist(), backwards=bool(suffix))
        outputs.append(_run_direction(packed, *weights, steps))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)


def _steps(sizes: list[int], backwards: bool) -> list[_Step]:
    """Return the steps in the order in which they are computed."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    steps = []
    order = range(len(sizes) - 1, -1, -1) if backwards else range(len(sizes))
    previous = None
    for time in order:
        known = 0 if previous is None else min(sizes[time], sizes[previous])
        before = 0 if previous is None else starts[previous]
        steps.append(_Step(starts[time], starts[time + 1], before, known))
        previous = time
    return steps


def _run_direction(
    packed: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    steps: list[_Step],
) -> Tensor:
    """Outputs (N, H) of packed steps (N, F). weight_ih (3H, F), weight_hh (3H, H), biases (3H,)."""
    gates = linear(packed, weight_ih, bias_ih)  # (N, 3H)
    return _Recurrence.apply(gates, weight_hh, bias_hh, steps)


class _Recurrence(torch.autograd.Function):
    """From what the inputs contribute to the gates to the outputs of all steps."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, bias: Tensor, steps: list[_Step]) -> Tensor:
        """inputs (N, 3H), weight (3H, H), bias (3H,) -> (N, H)."""
        width = weight.shape[1]
        gates = inputs.new_empty(inputs.shape)  # r, z, n of each step
        candidate = inputs.new_empty(len(inputs), width)  # W_hn h + b_hn
        outputs = inputs.new_empty(len(inputs), width)
        nothing = inputs.new_zeros(steps[-1].end, width) if steps else inputs
        for step in steps:
            rows = slice(step.start, step.end)
            before = _before(outputs, step, nothing)  # (b, H)
            hidden = linear(before, weight, bias)  # (b, 3H)
            both = gates[rows, : 2 * width]
            torch.add(inputs[rows, : 2 * width], hidden[:, : 2 * width], out=both)
            both.sigmoid_()
            reset, update = both.split(width, 1)
            candidate[rows] = hidden[:, 2 * width :]
            new = gates[rows, 2 * width :]
            torch.addcmul(inputs[rows, 2 * width :], reset, candidate[rows], out=new)
            new.tanh_()
            torch.lerp(new, before, update, out=outputs[rows])
        ctx.save_for_backward(gates, candidate, outputs, weight)
        ctx.steps = steps
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """grad (N, H) -> gradients of the inputs (N, 3H), the weight (3H, H) and the bias (3H,)."""
        gates, candidate, outputs, weight = ctx.saved_tensors
        width = weight.shape[1]
        transposed = weight.T.contiguous()  # (H, 3H)
        to_inputs = torch.empty_like(gates)
        to_hidden = torch.empty_like(gates)
        befores = torch.zeros_like(outputs)
        carried = torch.zeros_like(outputs)  # to the output of a step from the step after it
        for step in reversed(ctx.steps):
            rows = slice(step.start, step.end)
            before = befores[rows]
            before[: step.known] = outputs[step.before : step.before + step.known]
            reset, update, new = gates[rows].split(width, 1)
            to_output = grad[rows] + carried[rows]  # (b, H)
            to_reset, to_update, to_new = to_inputs[rows].split(width, 1)
            torch.mul(to_output, 1 - update, out=to_new).mul_(1 - new.square())
            torch.mul(to_output, before - new, out=to_update).mul_(update * (1 - update))
            torch.mul(to_new, candidate[rows], out=to_reset).mul_(reset * (1 - reset))
            to_gates = to_hidden[rows]
            to_gates[:, : 2 * width] = to_inputs[rows, : 2 * width]
            torch.mul(to_new, reset, out=to_gates[:, 2 * width :])
            if step.known:
                known = slice(0, step.known)
                back = linear(to_gates[known], transposed)  # (known, H)
                back.addcmul_(to_output[known], update[known])
                carried[step.before : step.before + step.known] = back
        _, needs_weight, needs_bias, _ = ctx.needs_input_grad
        to_weight = to_bias = None
        if needs_weight:
            to_weight = linear(to_hidden.T, befores.T)  # (3H, H)
        if needs_bias:
            to_bias = to_hidden.sum(0)
        return to_inputs, to_weight, to_bias, None


def _before(outputs: Tensor, step: _Step, nothing: Tensor) -> Tensor:
    """Return the outputs (b, H) of the step before; zeros where there was none."""
    n_rows = step.end - step.start
    known = outputs[step.before : step.before + step.known]
    if step.known == n_rows:
        return known
    return torch.cat([known, nothing[: n_rows - step.known]])
