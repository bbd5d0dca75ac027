"""The matrix product of a layer: torch's own, or on some CPUs twice as fast.

torch multiplies float32 matrices by Intel's MKL. On processors of other makers MKL stops at
256-bit instructions although they have 512-bit ones; oneDNN, which torch contains as well, uses
them (AMD EPYC, 2400 x 768 by 768 x 3072, one thread: 107 ms against 49, measured). Both sum in
float32 but in different orders, so results agree up to rounding.
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
    """Return scale x W^T + bias_scale b, by default `F.linear`.

    x (..., K), weight (N, K), bias (N,) -> (..., N).
    """
    if _is_faster(x, weight):
        return _Product.apply(x, weight, bias, scale, bias_scale)
    if scale == bias_scale == 1:
        return F.linear(x, weight, bias)
    if bias is None:
        product = F.linear(x, weight)
        return product if scale == 1 else product * scale
    rows = torch.addmm(bias, x.flatten(0, -2), weight.T, beta=bias_scale, alpha=scale)
    return rows.view(*x.shape[:-1], len(weight))


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN should multiply: large float32 matrices, where MKL is slow,
    uncompiled.
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
    """Return whether this CPU has 512-bit instructions that MKL does not use, and torch has
    oneDNN.
    """
    has_onednn = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not (hasattr(torch.cpu, "get_capabilities") and has_onednn):
        return False
    cpu = torch.cpu.get_capabilities()
    return (
        bool(cpu.get("avx512_f"))
        and "AMD" in str(cpu.get("cpu_name", ""))
        and torch.backends.mkl.is_available()
    )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K), weight (N, K), bias (N,) -> (..., N).

    oneDNN takes a fifth longer for a transposed view than for its copy, and ten times as long for
    some columns of a wider matrix.
    """
    return torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight.contiguous(), bias, "none", [], ""
    )


class _Product(torch.autograd.Function):
    """`linear` by oneDNN.

    Factors multiply the smaller of the two sides: a pass over the larger one would be noticeable.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor | None, scale: float, bias_scale: float
    ) -> Tensor:
        """x (..., K), weight (N, K), bias (N,) -> (..., N)."""
        ctx.save_for_backward(x, weight)
        ctx.scale = scale
        ctx.bias_scale = bias_scale
        if bias is not None and bias_scale != 1:
            bias = bias * bias_scale
        if scale == 1:
            return _multiply(x, weight, bias)
        if x.shape[-1] <= len(weight):
            return _multiply(x * scale, weight, bias)
        product = _multiply(x, weight).mul_(scale)
        return product if bias is None else product.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """grad (..., N) -> gradients of x (..., K), weight (N, K) and bias (N,), where needed."""
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        rows = grad.flatten(0, -2)  # (R, N)
        is_small = grad.shape[-1] <= x.shape[-1]
        scaled = rows
        if ctx.scale != 1 and is_small:
            scaled = rows * ctx.scale
        to_x = to_weight = to_bias = None
        if needs_x:
            to_x = _multiply(scaled, weight.T).view(x.shape)
        if needs_weight:
            to_weight = _multiply(scaled.T, x.flatten(0, -2).T)
        if ctx.scale != 1 and not is_small:
            for gradient in (to_x, to_weight):
                if gradient is not None:
                    gradient.mul_(ctx.scale)
        if needs_bias:
            to_bias = rows.sum(0) * ctx.bias_scale
        return to_x, to_weight, to_bias, None, None
