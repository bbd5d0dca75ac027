"""Which frames the samples of a batch show: the rules of pipeline/video/sampling.py, random numbers
by counter.
"""

import numpy as np
import pytest

from pipeline.feeding.frame_choice import Samples, choose, uniform
from pipeline.video.sampling import choose_frames


def samples(rows, seed: int = 3, epoch: int = 1) -> Samples:
    return Samples(seed, epoch, np.asarray(rows))


@pytest.mark.parametrize("mode", ["centers", "linspace", "head", "tail"])
def test_fixed_rules_are_those_of_single_videos(mode):
    counts = np.array([1, 5, 12, 13, 45, 5])

    index, real = choose(counts, 12, mode, samples(range(6)))

    assert np.array_equal(index, np.stack([choose_frames(n, 12, mode)[0] for n in counts]))
    assert real.tolist() == [1, 5, 12, 12, 12, 5]


@pytest.mark.parametrize(("mode", "bounds"), [
    ("segments", [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]),
    ("segments-published", list(range(13))),
])  # fmt: skip
def test_drawn_frames_lie_in_their_segments_and_fill_them(mode, bounds):
    index, _ = choose(np.full(500, 23), 12, mode, samples(range(500)))

    assert (index >= bounds[:-1]).all() and (index < bounds[1:]).all()
    assert set(index.ravel()) == set(range(bounds[-1]))


@pytest.mark.parametrize("mode", ["segments", "segments-published"])
def test_short_video_shows_every_frame_and_repeats_the_last(mode):
    index, real = choose(np.array([3]), 5, mode, samples([0]))

    assert (index.tolist(), real.tolist()) == ([[0, 1, 2, 2, 2]], [3])


def test_draw_depends_on_seed_epoch_and_sample_but_not_on_the_batch():
    counts = np.full(4, 1000)
    whole, _ = choose(counts, 6, "segments", samples([8, 2, 5, 7]))

    assert np.array_equal(choose(counts[:1], 6, "segments", samples([5]))[0], whole[2:3])
    for other in (
        samples([8, 2, 5, 7], seed=4),
        samples([8, 2, 5, 7], epoch=2),
        samples([9, 3, 4, 6]),
    ):
        assert (choose(counts, 6, "segments", other)[0] != whole).any(axis=1).all()


def test_random_numbers_are_uniform_and_independent():
    numbers = uniform(samples(range(20_000)), 4)

    assert np.allclose(np.histogram(numbers, 10, (0, 1))[0] / numbers.size, 0.1, atol=0.005)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.03


def test_every_third_frame_of_a_store_is_chosen_among():
    index, real = choose(np.array([10, 4]), 3, "linspace", samples([0, 1]), every=3)

    assert index.tolist() == [[0, 3, 9], [0, 3, 3]]
    assert real.tolist() == [3, 2]


def test_reversed_and_shuffled_orders_keep_real_frames_first():
    counts = np.array([3, 30])

    backwards, _ = choose(counts, 5, "centers", samples([0, 1]), order="reversed")
    shuffled, _ = choose(counts, 5, "centers", samples([0, 1]), order="shuffled")

    assert backwards.tolist() == [[2, 1, 0, 0, 0], [27, 21, 15, 9, 3]]
    assert sorted(shuffled[0, :3]) == [0, 1, 2] and len(set(shuffled[0, 2:])) == 1
    assert sorted(shuffled[1]) == [3, 9, 15, 21, 27]
