import torch
import torch.nn.functional as F

from models.dual_encoding.bag_of_words import Bag, bag_linear

TOKENS = torch.tensor([[3, 7, 3, 0], [5, 0, 0, 0], [9, 9, 9, 1]])


def _counts(tokens: torch.Tensor, n_words: int) -> torch.Tensor:
    counts = F.one_hot(tokens, n_words).float().sum(1)
    counts[:, 0] = 0
    return counts


def test_words_are_counted_and_padding_is_not():
    assert torch.equal(Bag.of(TOKENS, 12).dense(), _counts(TOKENS, 12))


def test_skipped_entries_of_the_vocabulary_are_not_counted():
    expected = _counts(TOKENS, 12)
    expected[:, :4] = 0

    assert torch.equal(Bag.of(TOKENS, 12, skip=4).dense(), expected)


def test_linear_on_a_bag_is_linear_on_its_counts_with_all_gradients():
    rng = torch.Generator().manual_seed(0)
    values = [
        torch.randn(shape, generator=rng, dtype=torch.float64)
        for shape in ((3, 5), (6, 17), (6,), (3, 6))
    ]
    rest, weight, bias = (value.requires_grad_() for value in values[:3])

    ours = bag_linear(Bag.of(TOKENS, 12), rest, weight, bias)
    dense = F.linear(torch.cat([_counts(TOKENS, 12).double(), rest], 1), weight, bias)

    torch.testing.assert_close(ours, dense)
    grads = [
        torch.autograd.grad((out * values[3]).sum(), [rest, weight, bias]) for out in (ours, dense)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
