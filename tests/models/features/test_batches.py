"""Images in, features out, in batches."""

import numpy as np
import pytest

from models.features.batches import TINY, Batches, load_network


@pytest.fixture(scope="module")
def network():
    return load_network(TINY, None, "float32", "cpu")


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def features(network, images, batch=4, full=False) -> np.ndarray:
    batches = Batches(network, 64, batch, "cpu", full)
    for image in images:
        batches.add(image)
    return batches.drain()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_features_come_in_the_order_of_the_images_whatever_the_batch(network, batch, full):
    alone = np.concatenate([features(network, image[None]) for image in pictures(9)])

    assert np.allclose(features(network, pictures(9), batch, full), alone, rtol=1e-4, atol=1e-5)


def test_a_full_batch_gives_the_same_bytes_wherever_an_image_stands(network):
    images = pictures(8)

    shifted = features(network, np.roll(images, 3, axis=0), full=True)

    assert (np.roll(shifted, -3, axis=0) == features(network, images, full=True)).all()


def test_what_a_failed_video_left_can_be_forgotten(network):
    batches = Batches(network, 64, 4, "cpu", full=False)
    for image in pictures(6):
        batches.add(image)

    batches.clear()
    batches.add(pictures(1)[0])

    assert len(batches.drain()) == 1
