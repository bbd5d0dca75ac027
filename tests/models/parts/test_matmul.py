import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.parts import matmul

BIASES = {"with": torch.linspace(-1, 1, 40), "without": None}


def made(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("scale", [1.0, 1.702])
@pytest.mark.parametrize("width", [24, 56])  # narrower and wider than the result
def test_products_of_one_dnn_are_those_of_torch(width: int, scale: float, bias: str) -> None:
    x, weight, b = made(3, 5, width), made(40, width), BIASES[bias]
    b = None if b is None else b.clone().requires_grad_()
    inputs = [t for t in (x, weight, b) if t is not None]
    back = torch.linspace(-1, 1, 3 * 5 * 40).view(3, 5, 40)

    ours = matmul._Product.apply(x, weight, b, scale, 0.5)
    expected = F.linear(x, weight) * scale + (0 if b is None else 0.5 * b)

    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)  # sums in another order
    found, wanted = (torch.autograd.grad(y, inputs, back) for y in (ours, expected))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1.702])
def test_torchs_own_way_is_the_same_function(scale: float) -> None:
    x, weight, bias = made(3, 5, 24), made(40, 24), made(40)

    ours = matmul.linear(x, weight, bias, scale, 0.5)

    torch.testing.assert_close(ours, F.linear(x, weight) * scale + 0.5 * bias, atol=1e-5, rtol=1e-5)


def test_frozen_weights_get_no_gradient_and_cost_none() -> None:
    x, weight = made(5, 24), made(40, 24).detach()

    matmul._Product.apply(x, weight, None, 1.0, 1.0).sum().backward()

    assert weight.grad is None
    torch.testing.assert_close(x.grad, weight.sum(0).expand(5, -1), atol=1e-5, rtol=1e-5)


def test_small_and_half_precision_products_stay_with_torch() -> None:
    large, small = torch.ones(64, 512), torch.ones(2, 512)
    weight = torch.ones(512, 512)

    assert not matmul._is_faster(small, weight)
    assert not matmul._is_faster(large.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not matmul._is_faster(large, weight)
    assert matmul._is_faster(large, weight) == matmul.mkl_is_slow()
