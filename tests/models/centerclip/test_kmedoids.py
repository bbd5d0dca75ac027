import numpy as np
import pytest
import torch
from torch import Tensor

from models.centerclip.kmedoids import distances, kmedoids, squared_distances
from models.centerclip.spectral import (
    affinity,
    automatic_neighbours,
    laplacian,
    space_time_neighbours,
    spectral,
)
from models.centerclip.tokens import (
    members_mean,
    pool_frames,
    segment_class,
    segment_tokens,
    shift_class,
    shift_patches,
    spread_ids,
)


def pairs_of_frames(rows: int = 4, n: int = 40, width: int = 32, seed: int = 0) -> Tensor:
    """Tokens that each occur twice with small differences, so that most clusters have two
    members.
    """
    rng = torch.Generator().manual_seed(seed)
    scene = torch.randn(rows, 1, n // 2, width, generator=rng)
    return (scene + 0.2 * torch.randn(rows, 2, n // 2, width, generator=rng)).flatten(1, 2)


def reference(x: np.ndarray, k: int, p: float, limit: int = 100) -> tuple[list[int], list[int]]:
    """One row in plain loops: start, rounds, sort; the lowest index wins every tie."""
    n = len(x)
    d = [[float((np.abs(x[i] - x[j]) ** p).sum() ** (1 / p)) for j in range(n)] for i in range(n)]
    medoids = [int(np.linalg.norm(x, axis=1).argmax())]
    while len(medoids) < k:
        near = [min(d[i][m] for m in medoids) if i not in medoids else -1.0 for i in range(n)]
        medoids.append(near.index(max(near)))

    def assign(chosen: list[int]) -> list[int]:
        row = [[d[i][m] for m in chosen] for i in range(n)]
        return [chosen.index(i) if i in chosen else row[i].index(min(row[i])) for i in range(n)]

    for _ in range(limit):
        of, new = assign(medoids), []
        for c in range(k):
            own = [i for i in range(n) if of[i] == c]
            costs = [sum(d[i][j] for j in own) for i in own]
            new.append(own[int(np.argmin(np.round(costs, 9)))])
        if new == medoids:
            break
        medoids = new
    return sorted(medoids), assign(sorted(medoids))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("k", [1, 7, 20, 40])
def test_clusters_are_those_of_plain_loops(p: float, k: int) -> None:
    tokens = pairs_of_frames(rows=2)

    made = kmedoids(tokens, k, p=p)

    expected = [reference(row.double().numpy(), k, p) for row in tokens]
    assert made.medoids.tolist() == [medoids for medoids, _ in expected]
    assert made.assign.tolist() == [assign for _, assign in expected]


def test_medoids_survive_noise_of_two_in_a_million() -> None:
    tokens = pairs_of_frames(rows=8, n=98, width=64)
    noise = 1 + 2e-6 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))

    assert torch.equal(kmedoids(tokens * noise, 49).medoids, kmedoids(tokens, 49).medoids)


@pytest.mark.parametrize("split", [1, 2, 3, 5])
def test_medoids_do_not_depend_on_what_shares_a_batch(split: int) -> None:
    tokens = pairs_of_frames(rows=5)

    parts = [kmedoids(part, 20) for part in tokens.split(split)]

    whole = kmedoids(tokens, 20)
    assert torch.equal(torch.cat([part.medoids for part in parts]), whole.medoids)
    assert torch.equal(torch.cat([part.assign for part in parts]), whole.assign)
    assert torch.equal(kmedoids(tokens, 20, chunk_bytes=1).assign, whole.assign)


def test_of_equal_tokens_the_first_is_the_medoid() -> None:
    tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).repeat(1, 3, 1)

    made = kmedoids(tokens, 5)

    assert made.medoids.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert made.assign.tolist() == [[0, 1, 2, 3, 4] * 3] * 2


def test_a_medoid_belongs_to_itself_even_if_another_is_the_same_token() -> None:
    tokens = torch.randn(1, 2, 8).repeat(1, 2, 1)

    made = kmedoids(tokens, 4)

    assert made.assign.tolist() == [[0, 1, 2, 3]]


def test_with_pre_norm_only_directions_count_and_noise_changes_nothing() -> None:
    tokens = pairs_of_frames(rows=8, n=30)
    lengths = torch.linspace(1, 2, 30)[:, None]  # the last one is the longest, whatever the noise
    tokens = lengths * torch.nn.functional.normalize(tokens, dim=-1)

    made = kmedoids(tokens, 12, pre_norm=True)

    noise = 1 + 2e-6 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(kmedoids(tokens * noise, 12, pre_norm=True).medoids, made.medoids)
    assert torch.equal(kmedoids(3 * tokens, 12, pre_norm=True).medoids, made.medoids)


@pytest.mark.parametrize(("metric", "p"), [("euclidean", 2.0), ("euclidean", 1.0), ("cosine", 2.0)])
def test_distances_are_exactly_symmetric_with_a_zero_diagonal(metric: str, p: float) -> None:
    d = distances(30 + pairs_of_frames(), metric, p)

    assert torch.equal(d, d.transpose(1, 2))
    assert torch.equal(d.diagonal(dim1=1, dim2=2), torch.zeros(4, 40, dtype=torch.float64))


def test_distances_from_inner_products_are_as_exact_as_subtracting() -> None:
    tokens = 30 + pairs_of_frames()

    direct = (tokens.double()[:, :, None] - tokens.double()[:, None]).square().sum(-1)

    assert (
        squared_distances(tokens) - direct
    ).abs().max() < 1e-10  # float64 rounding of numbers around 64


@pytest.mark.parametrize("k", [0, 41])
def test_more_medoids_than_tokens_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"{k} medoids of 40 tokens"):
        kmedoids(pairs_of_frames(), k)


def test_spectral_clusters_are_the_connected_parts() -> None:
    centres = 8 * torch.eye(3, 16)
    tokens = torch.cat([c + 0.1 * torch.randn(4, 16) for c in centres])[torch.randperm(12)][None]

    made = spectral(tokens, 3, sigma=1.0)

    own = torch.cdist(tokens[0], centres).argmin(1)
    together = made.assign[0][:, None] == made.assign[0]
    assert torch.equal(together, own[:, None] == own)


def test_affinities_stay_if_near_for_either_token() -> None:
    tokens = torch.tensor([[[0.0], [1.0], [1.5], [9.0]]])

    kept = affinity(tokens, 2.0, neighbours=2)[0] > 0

    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert kept.int().tolist() == expected


def test_laplacian_keeps_its_digits_where_affinities_are_tiny() -> None:
    weights = torch.full((1, 3, 3), 1e-20, dtype=torch.float64)
    weights.diagonal(dim1=1, dim2=2).fill_(1)

    assert torch.allclose(
        laplacian(weights).diagonal(dim1=1, dim2=2), torch.tensor(2e-20, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("stated", "tokens", "frames", "expected"), [(1, 49, 3, 15), (1, 160, 4, 25), (8, 49, 3, 8)]
)
def test_automatic_neighbours_are_the_published_ones(
    stated: int, tokens: int, frames: int, expected: int
) -> None:
    assert automatic_neighbours(stated, tokens, frames) == expected


def test_neighbours_in_space_and_time_are_near_in_both() -> None:
    near = space_time_neighbours(16, 3, space=3, time=3)

    assert near[5].nonzero().flatten().tolist() == [
        f * 16 + p for f in (0, 1) for p in (0, 1, 2, 4, 5, 6, 8, 9, 10)
    ]
    assert torch.equal(near, near.T)


def test_segments_hold_the_tokens_of_their_frames_in_order() -> None:
    tokens = torch.arange(4 * 3.0).view(4, 3, 1)  # 4 frames of a class token and 2 patches

    assert segment_tokens(tokens, 2).squeeze(-1).tolist() == [[1, 2, 4, 5], [7, 8, 10, 11]]
    assert segment_class(tokens, 2).squeeze(-1).tolist() == [[1.5], [7.5]]
    assert pool_frames(tokens, 2).squeeze(-1).tolist() == [[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]]


def test_means_of_members_are_those_of_each_cluster() -> None:
    tokens, assign = torch.randn(2, 6, 3), torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]])

    made = members_mean(tokens, assign, 2)

    assert torch.allclose(made[0, 1], tokens[0, [1, 3, 4]].mean(0))
    assert torch.allclose(made[1, 1], tokens[1, 5])


def test_shifts_take_channels_from_the_neighbouring_frames() -> None:
    tokens = torch.randn(2 * 3, 1 + 2, 16)  # 2 videos of 3 frames; an eighth of the channels: 2
    frames = tokens.unflatten(0, (2, 3))

    moved = shift_patches(tokens, 3).unflatten(0, (2, 3))

    assert torch.equal(moved[:, :2, 1:, :2], frames[:, 1:, 1:, :2])
    assert torch.equal(moved[:, 1:, 1:, 2:4], frames[:, :2, 1:, 2:4])
    assert torch.equal(moved[..., 4:], frames[..., 4:])
    assert not moved[:, 2, 1:, :2].any()
    assert torch.equal(moved[:, :, 0], frames[:, :, 0])
    assert torch.equal(shift_class(tokens, 3)[:, 1:], tokens[:, 1:])


def test_sampled_tokens_are_the_middles_or_one_of_each_part() -> None:
    drawn = spread_ids(98, 49, np.random.RandomState(0))

    assert spread_ids(18, 5).tolist() == [1, 5, 9, 12, 16]
    assert np.array_equal(drawn // 2, np.arange(49))
    with pytest.raises(ValueError, match="9 of 5 tokens"):
        spread_ids(5, 9)
