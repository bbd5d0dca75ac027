"""The matrix product of a layer: torch's own, or on some CPUs twice as fast.

torch multiplies float32 matrices by Intel's MKL, which stops at 256-bit instructions on processors
of other makers although they have 512-bit ones; oneDNN, which is in torch as well, uses them (AMD
EPYC, 2400 x 768 by 768 x 3072, one
thread: 107 ms against 49, measured). Both sum in float32, in another order: results agree to
rounding.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_WORTH = 1 << 22  # multiplications; below, the way through Python costs more than it saves


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: float = 1.0,
    bias_scale: float = 1.0,
) -> Tensor:
    """scale x W^T + bias_scale b, by default `F.linear`: x (..., K), weight (N, K), bias (N,) ->
    (..., N).
    """
    if _is_faster(x, weight):
        return _Product.apply(x, weight, bias, scale, bias_scale)
    if scale == bias_scale == 1 or bias is None:
        return F.linear(x, weight, bias) if scale == 1 else F.linear(x, weight) * scale
    rows = torch.addmm(bias, x.flatten(0, -2), weight.T, beta=bias_scale, alpha=scale)
    return rows.view(*x.shape[:-1], len(weight))


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is to multiply: large float32 matrices in plain execution, where MKL is
    slow.
    """
    return (
        not torch.compiler.is_compiling()  # compilers choose their own products
        and x.device.type == "cpu"
        and x.ndim > 1
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= _WORTH
        and not torch.is_autocast_enabled("cpu")
        and mkl_is_slow()
    )


@cache
def mkl_is_slow() -> bool:
    """Whether this CPU has 512-bit instructions that MKL does not use, and torch has oneDNN."""
    if not (
        hasattr(torch.cpu, "get_capabilities") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    cpu = torch.cpu.get_capabilities()
    return (
        bool(cpu.get("avx512_f"))
        and "AMD" in str(cpu.get("cpu_name", ""))
        and torch.backends.mkl.is_available()
    )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """`linear` by oneDNN. Factors go to the smaller of the two sides: a pass over the larger one
    would show.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor | None, scale: float, bias_scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.scales = scale, bias_scale
        bias = bias if bias is None or bias_scale == 1 else bias * bias_scale
        if scale == 1:
            return _multiply(x, weight, bias)
        if x.shape[-1] <= len(weight):
            return _multiply(x * scale, weight, bias)
        found = _multiply(x, weight).mul_(scale)
        return found if bias is None else found.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (scale, bias_scale) = ctx.saved_tensors, ctx.scales
        rows = grad.flatten(0, -2)
        is_small = grad.shape[-1] <= x.shape[-1]
        scaled = rows * scale if scale != 1 and is_small else rows
        to_x = _multiply(scaled, weight.T).view(x.shape) if ctx.needs_input_grad[0] else None
        to_weight = _multiply(scaled.T, x.flatten(0, -2).T) if ctx.needs_input_grad[1] else None
        if scale != 1 and not is_small:
            to_x, to_weight = (
                None if value is None else value.mul_(scale) for value in (to_x, to_weight)
            )
        to_bias = rows.sum(0) * bias_scale if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None, None
