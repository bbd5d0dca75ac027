"""Noise that is a function of seed, direction, query and candidate, and of nothing else."""

import numpy as np
import pytest

from models.parts.noise import KeyedNoise, keys

NOISE = KeyedNoise(
    0, keys([f"text {n}" for n in range(400)]), keys([f"video{n}" for n in range(300)])
)
EVERYTHING = np.arange(400), np.tile(np.arange(300), (400, 1))


def test_numbers_are_standard_normal() -> None:
    x = NOISE.draw("t2v", *EVERYTHING).astype(np.float64)

    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01  # 120,000 numbers: 3 standard errors
    assert abs(np.mean(np.abs(x) < 1) - 0.6827) < 0.005
    assert abs((x**4).mean() - 3) < 0.1


def test_numbers_of_neighbours_are_not_alike() -> None:
    x = NOISE.draw("t2v", *EVERYTHING)

    assert abs(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1]) < 0.01


def test_a_pair_has_its_number_in_any_company() -> None:
    whole = NOISE.draw("t2v", *EVERYTHING)

    some = NOISE.draw("t2v", np.array([7, 3]), np.array([[299, 5, 0], [1, 2, 5]]))

    assert (some == np.stack([whole[7, [299, 5, 0]], whole[3, [1, 2, 5]]])).all()


def test_rows_are_known_by_what_they_are_not_by_where_they_stand() -> None:
    moved = KeyedNoise(0, NOISE.text[::-1].copy(), NOISE.video[10:])

    found = moved.draw("v2t", np.array([0]), np.array([[0, 399]]))

    assert (found == NOISE.draw("v2t", np.array([10]), np.array([[399, 0]]))).all()


@pytest.mark.parametrize(("seed", "direction"), [(1, "t2v"), (0, "v2t"), (2**62, "t2v")])
def test_another_seed_or_direction_gives_other_numbers(seed: int, direction: str) -> None:
    other = KeyedNoise(seed, NOISE.text, NOISE.video).draw(
        direction, np.arange(5), np.tile(np.arange(5), (5, 1))
    )

    assert not np.isclose(
        other, NOISE.draw("t2v", np.arange(5), np.tile(np.arange(5), (5, 1)))
    ).any()


def test_numbers_are_the_same_in_every_version() -> None:
    found = KeyedNoise(42, keys(["a man cooks"]), keys(["video7020", "video7021"])).draw(
        "t2v", np.array([0]), np.array([[0, 1]])
    )

    np.testing.assert_allclose(found, [[-0.11598563, 0.4108162]], atol=1e-6)
