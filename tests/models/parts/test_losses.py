import pytest
import torch

from models.parts.losses import contrastive, correlation, decorrelation, tag_loss, triplet, triplets

SCORES = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.2, 0.25], [0.0, 0.1, 0.5]])


def _costs(scores: torch.Tensor, margin: float) -> list[list[float]]:
    n = len(scores)
    return [
        [max(0.0, margin + float(scores[i, j] - scores[i, i])) if i != j else 0.0 for j in range(n)]
        for i in range(n)
    ]


def test_only_the_hardest_negative_of_a_row_counts():
    costs = _costs(SCORES, 0.2)

    assert float(triplet(SCORES)) == pytest.approx(sum(map(max, costs)) / 3)
    assert float(triplet(SCORES, cost="sum")) == pytest.approx(sum(map(max, costs)))


def test_without_max_violation_every_negative_counts():
    total = sum(map(sum, _costs(SCORES, 0.3)))

    assert float(triplet(SCORES, 0.3, max_violation=False, cost="sum")) == pytest.approx(total)
    assert float(triplet(SCORES, 0.3, max_violation=False)) == pytest.approx(total / 9)


def test_excluded_pairs_are_no_negatives():
    excluded = torch.zeros(3, 3, dtype=torch.bool)
    excluded[0, 1] = excluded[1, 0] = True

    costs = _costs(SCORES, 0.2)
    costs[0][1] = costs[1][0] = 0.0

    assert float(triplet(SCORES, excluded=excluded)) == pytest.approx(sum(map(max, costs)) / 3)


@pytest.mark.parametrize(
    ("direction", "names"), [("all", {"t2v", "v2t"}), ("t2v", {"t2v"}), ("v2t", {"v2t"})]
)
def test_texts_are_rows_and_videos_columns(direction, names):
    losses = triplets(SCORES, direction)

    assert losses.keys() == names
    for name in names:
        assert torch.equal(losses[name], triplet(SCORES if name == "t2v" else SCORES.T))


def test_tag_loss_is_cross_entropy_with_soft_labels():
    logits, labels = (
        torch.tensor([[0.5, -2.0], [30.0, 1.0]]),
        torch.tensor([[0.2, 0.0], [1.0, 0.7]]),
    )
    p = torch.sigmoid(logits.double())
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()

    assert float(tag_loss(logits, labels)) == pytest.approx(float(expected), abs=1e-6)
    assert float(tag_loss(logits, labels, "sum")) == pytest.approx(2 * float(expected), abs=1e-6)


def test_contrastive_is_cross_entropy_with_the_own_column():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    expected = -torch.stack([logits[0].log_softmax(0)[1], logits[1].log_softmax(0)[2]]).mean()

    assert float(contrastive(logits, first=1)) == pytest.approx(float(expected))


def _correlation_in_loops(
    a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, count: int
) -> torch.Tensor:
    a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
    return sum(weight[i] * torch.outer(a[i], b[i]) for i in range(len(a))) / count


def test_decorrelation_and_its_gradient_are_those_of_the_sum_over_rows():
    random = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(9, 5, generator=random, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    weight = torch.rand(9, generator=random, dtype=torch.float64, requires_grad=True)
    matrix = _correlation_in_loops(a, b, weight, 4)
    off = matrix[~torch.eye(5, dtype=torch.bool)]
    expected = 0.3 * (matrix.diagonal() - 1).square().sum() + 0.05 * off.square().sum()

    ours = decorrelation(correlation(a, b, weight, 4), 0.3, 0.05)

    torch.testing.assert_close(ours, expected)
    grads = [torch.autograd.grad(loss, [a, b, weight]) for loss in (ours, expected)]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_correlation_keeps_no_tensor_with_both_rows_and_pairs_of_channels():
    a, b = (
        torch.randn(300, 64, generator=torch.Generator().manual_seed(s), requires_grad=True)
        for s in (1, 2)
    )
    sizes = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        decorrelation(correlation(a, b, torch.rand(300).requires_grad_(), 30), 0.1, 0.1)

    assert max(sizes) == 300 * 64
