"""The demo's frozen network: what can be read from its features with a linear map."""

import numpy as np
import pytest
import torch
from PIL import Image

from models.features.tiny_random import TinyRandom
from pipeline.datasets.parts import draw
from pipeline.datasets.parts.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, DrawnShape, Scene

FRAMES = 20


def drawn(count: int, odd: bool, seed: int) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """uint8 (count, 64, 64, 3) of one moving shape each, drawn at 160 pixels; what they show. odd:
    which half of the combinations of colour and kind, so that two halves share no combination.
    """
    random = np.random.default_rng(seed)
    images, facts = [], {name: [] for name in ("colour", "shape", "size", "background", "x")}
    for _ in range(count):
        colour, size, background = (
            random.integers(len(table)) for table in (COLOURS, SIZES, BACKGROUNDS)
        )
        kind = (2 * random.integers(3) + colour + odd) % 6
        shape = DrawnShape(
            list(COLOURS)[colour],
            list(SHAPES)[kind],
            list(SIZES)[size],
            "right",
            int(random.integers(-30, 31)),
        )
        index = int(random.integers(FRAMES))
        scene = Scene((shape,), list(BACKGROUNDS)[background])
        picture = list(draw.frames(scene, FRAMES, 160, 160))[index]
        images.append(
            np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR))
        )
        for name, value in zip(
            facts,
            (colour, kind, size, background, draw._place(shape, index, FRAMES)[0]),
            strict=True,
        ):
            facts[name].append(value)
    return torch.from_numpy(np.stack(images)), {
        name: np.array(column) for name, column in facts.items()
    }


def ridge(features: np.ndarray, targets: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """What a ridge regression learnt on (features, targets) says about `unseen`."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    x, z = (
        (np.c_[(f - mean) / deviation, np.ones(len(f))]).astype(np.float64)
        for f in (features, unseen)
    )
    return z @ np.linalg.solve(x.T @ x + 0.03 * len(x) * np.eye(x.shape[1]), x.T @ targets)


@pytest.fixture(scope="module")
def probes():
    network = TinyRandom()
    (seen, known), (unseen, truth) = drawn(700, False, 0), drawn(300, True, 1)
    return network(seen).numpy(), known, network(unseen).numpy(), truth


@pytest.mark.parametrize(
    ("what", "share"), [("colour", 0.95), ("shape", 0.9), ("size", 0.95), ("background", 0.95)]
)
def test_attributes_can_be_read_linearly_on_unseen_combinations(probes, what, share):
    features, known, unseen, truth = probes

    answers = ridge(features, np.eye(6)[known[what]], unseen).argmax(1)

    assert (answers == truth[what]).mean() > share


def test_place_can_be_read_within_a_tenth_of_the_side(probes):
    features, known, unseen, truth = probes

    errors = np.abs(ridge(features, known["x"], unseen) - truth["x"])

    assert (errors < 0.1).mean() > 0.95


def test_features_are_the_same_in_every_batch_and_every_network():
    images, _ = drawn(5, False, 2)

    together = TinyRandom()(images)

    assert together.shape == (5, TinyRandom.dim)
    torch.testing.assert_close(
        torch.cat([TinyRandom()(i[None]) for i in images]), together, rtol=1e-5, atol=1e-6
    )


def test_an_empty_picture_gives_finite_features():
    empty = torch.stack([torch.full((64, 64, 3), v, dtype=torch.uint8) for v in (0, 128, 255)])

    assert TinyRandom()(empty).isfinite().all()
