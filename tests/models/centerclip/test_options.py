"""Every option of the clusterings against plain loops over the specification."""

import itertools

import pytest
import torch
from torch import Tensor

from models.centerclip.kmedoids import kmedoids
from models.centerclip.options import Reduce
from models.centerclip.reduction import TokenShape, build_reducer
from models.centerclip.spectral import automatic_neighbours, space_time_neighbours, spectral
from reference import clusters

METRICS = [
    {"metric": "euclidean", "p": 2.0},
    {"metric": "euclidean", "p": 1.0},
    {"metric": "euclidean", "p": 3.0},
    {"metric": "cosine"},
]
STOPS = [{}, {"max_iter": 1}, {"max_iter": 2}, {"tol": 0.0}, {"tol": 3.0}, {"tol": 1e9}]


def tokens(rows: int = 3, n: int = 18, width: int = 12, seed: int = 0) -> Tensor:
    """Frames that resemble each other: 3 of n / 3 tokens, of lengths that differ."""
    rng = torch.Generator().manual_seed(seed)
    scene = torch.randn(rows, 1, n // 3, width, generator=rng)
    moved = scene + 0.4 * torch.randn(rows, 3, n // 3, width, generator=rng)
    return (moved * (0.5 + torch.rand(rows, 3, n // 3, 1, generator=rng))).flatten(1, 2)


def as_lists(made: tuple[Tensor, Tensor]) -> list[tuple[list[int], list[int]]]:
    return list(zip(made[0].tolist(), made[1].tolist(), strict=True))


@pytest.mark.parametrize("k", [1, 6, 9, 17, 18])
@pytest.mark.parametrize(("metric", "stop"), list(itertools.product(METRICS, STOPS)), ids=str)
@pytest.mark.parametrize("pre_norm", [False, True])
def test_medoids_are_those_of_plain_loops(metric: dict, stop: dict, pre_norm: bool, k: int) -> None:
    x, options = tokens(seed=k), metric | stop | {"pre_norm": pre_norm}

    made = kmedoids(x, k, **options)

    assert as_lists(made) == [clusters.kmedoids(row.double().numpy(), k, **options) for row in x]


GRAPHS = [
    {"neighbours": None},
    {"neighbours": 7},
    {"neighbours": 99},
]  # fewer leave parts alone: no one basis then


@pytest.mark.parametrize("k", [2, 5, 9])
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("sigma", [1.0, 2.0, 6.0])
@pytest.mark.parametrize("metric", METRICS, ids=str)
def test_spectral_medoids_are_those_of_plain_loops(
    metric: dict, sigma: float, graph: dict, k: int
) -> None:
    x = tokens(seed=k)

    made = spectral(x, k, sigma=sigma, **graph, **metric)

    assert as_lists(made) == [
        clusters.spectral(row.double().numpy(), k, sigma, **graph, **metric) for row in x
    ]


@pytest.mark.parametrize(("per_frame", "frames"), [(49, 3), (49, 9), (100, 2)])
def test_neighbours_in_space_and_time_are_those_of_plain_loops(per_frame: int, frames: int) -> None:
    assert (
        space_time_neighbours(per_frame, frames).numpy() == clusters.space_time(per_frame, frames)
    ).all()


@pytest.mark.parametrize("method", ["kmedoids", "spectral"])
@pytest.mark.parametrize("graph", ["knn", "heat"])
@pytest.mark.parametrize(
    ("keep", "embedding"), [("medoid", False), ("mean", False), ("medoid", True), ("mean", True)]
)
def test_a_block_keeps_what_its_options_say(
    method: str, graph: str, keep: str, embedding: bool
) -> None:
    frames, per_frame, k = 2, 9, 5
    options = Reduce(
        method=method,
        frames=1,
        tokens=k,
        graph=graph,
        keep=keep,
        embedding=embedding,
        space_time=True,
        sigma=3.0,
    )
    module = build_reducer(options, TokenShape(frames, per_frame, 12))
    x = torch.randn(frames, 1 + per_frame, 12, generator=torch.Generator().manual_seed(4))

    made = module(x)[0].detach()

    row = x[:, 1:].flatten(0, 1)
    medoids, of = _plain(method, graph, row.double().numpy(), k, frames, per_frame)
    members = [row[[c == n for c in of]].mean(0) for n in range(k)]
    kept = torch.stack(members) if keep == "mean" else row[medoids]
    kept = kept + module.embedding.detach() if embedding else kept
    torch.testing.assert_close(made, torch.cat([x[:, 0].mean(0)[None], kept]), atol=1e-6, rtol=1e-6)


def _plain(
    method: str, graph: str, row: object, k: int, frames: int, per_frame: int
) -> tuple[list[int], list[int]]:
    if method == "kmedoids":
        return clusters.kmedoids(row, k)
    neighbours = automatic_neighbours(1, per_frame, frames) if graph == "knn" else None
    return clusters.spectral(row, k, 3.0, neighbours, clusters.space_time(per_frame, frames))
