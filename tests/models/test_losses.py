import pytest
import torch

from models.losses import tag_loss, triplet, triplets

SCORES = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.2, 0.25], [0.0, 0.1, 0.5]])


def _costs(scores: torch.Tensor, margin: float) -> list[list[float]]:
    n = len(scores)
    return [
        [max(0.0, margin + float(scores[i, j] - scores[i, i])) if i != j else 0.0 for j in range(n)] for i in range(n)
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


@pytest.mark.parametrize(("direction", "names"), [("all", {"t2v", "v2t"}), ("t2v", {"t2v"}), ("v2t", {"v2t"})])
def test_texts_are_rows_and_videos_columns(direction, names):
    losses = triplets(SCORES, direction)

    assert losses.keys() == names
    for name in names:
        assert torch.equal(losses[name], triplet(SCORES if name == "t2v" else SCORES.T))


def test_tag_loss_is_cross_entropy_with_soft_labels():
    logits, labels = torch.tensor([[0.5, -2.0], [30.0, 1.0]]), torch.tensor([[0.2, 0.0], [1.0, 0.7]])
    p = torch.sigmoid(logits.double())
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()

    assert float(tag_loss(logits, labels)) == pytest.approx(float(expected), abs=1e-6)
    assert float(tag_loss(logits, labels, "sum")) == pytest.approx(2 * float(expected), abs=1e-6)
