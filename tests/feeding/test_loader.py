"""Batches: order, determinism, shares of ranks, padding, and the thread that assembles them."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.feeding.loader import (
    Slot,
    TrainBatches,
    epoch_order,
    pair_order,
    prefetched,
    spread_videos,
    video_batches,
)
from pipeline.processes import World
from tests.training import toy


def batches(size=12, drop_last=False, **more) -> TrainBatches:
    return TrainBatches(toy.corpus(), size, seed=3, drop_last=drop_last, **more)


def copies(made) -> list[dict[str, torch.Tensor]]:
    return [{name: t.clone() for name, t in batch.tensors.items()} for batch in made]


def equal(a, b) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x
    )


def test_every_caption_comes_once_per_epoch_in_another_order_each_time():
    first, second = (np.concatenate(batches().rows(epoch)) for epoch in (0, 1))

    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()


def test_order_is_a_function_of_seed_and_epoch_alone():
    assert np.array_equal(epoch_order(1000, 7, 3), epoch_order(1000, 7, 3))
    assert not np.array_equal(epoch_order(1000, 7, 3), epoch_order(1000, 8, 3))


def test_epoch_entered_in_the_middle_gives_the_same_batches():
    whole, rest = copies(batches().epoch(2)), copies(batches().epoch(2, start=3))

    assert equal(whole[3:], rest)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_have_the_batches_of_one_process(size):
    alone = batches().rows(0)
    shares = [batches(world=World(rank, size)).rows(0) for rank in range(size)]

    for whole, *parts in zip(alone, *shares, strict=False):
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    ("drop_last", "expected"), [(False, [12, 12, 12, 12, 2]), (True, [12, 12, 12, 12])]
)
def test_last_batch_is_smaller_or_left_out(drop_last, expected):
    made = batches(drop_last=drop_last)

    assert [len(rows) for rows in made.rows(0)] == expected
    assert len(made) == len(expected)


def test_last_batch_of_one_caption_is_left_out_because_batch_norm_needs_two():
    assert [len(rows) for rows in batches(size=7).rows(0)] == [7] * 7


def test_batch_is_padded_to_its_own_longest_and_masked():
    corpus = toy.corpus()
    batch = next(batches().epoch(0))
    row, video = batches().rows(0)[0][1], corpus.video_of[batches().rows(0)[0][1]]

    text, mask = batch.tensors["text"][1], batch.tensors["text_mask"][1]
    features, real = batch.tensors["features"][1], batch.tensors["video_mask"][1]

    assert mask.sum() == corpus.texts.lengths[row]
    assert batch.tensors["text_mask"].any(0).all() and batch.tensors["video_mask"].any(0).all()
    assert (text[~mask] == 0).all() and (text[mask] >= 4).all()
    assert (features[~real] == 0).all() and (features[real] != 0).all()
    assert batch.video_ids[1] == corpus.video_ids[video]
    assert torch.equal(batch.tensors["tags"][1], torch.from_numpy(corpus.tags[video]))


def test_distinct_videos_puts_no_video_twice_into_a_batch():
    video_of = np.repeat(np.arange(40), 5)
    order = spread_videos(epoch_order(200, 1, 1), video_of, 16)

    assert sorted(order) == list(range(200))
    repeats = [16 - len(set(video_of[order[start : start + 16]])) for start in range(0, 160, 16)]
    assert repeats == [0] * 10


def test_videos_come_in_order_whatever_the_batch_size():
    corpus = toy.corpus()
    for size in (3, 20):
        made = [
            (list(positions), batch["features"].sum((1, 2)))
            for positions, batch in video_batches(corpus.videos, size)
        ]

        assert sum((positions for positions, _ in made), []) == list(range(20))
        expected = [corpus.videos.batch(np.array([n]), Slot())["features"].sum() for n in range(20)]
        assert torch.allclose(
            torch.cat([sums for _, sums in made]), torch.stack(expected), atol=1e-5
        )


@pytest.mark.parametrize(
    ("size", "world", "words"), [(9, World(0, 2), "cannot be shared"), (64, World(), "do not fill")]
)
def test_batch_that_cannot_be_is_refused(size, world, words):
    with pytest.raises(ConfigError, match=words):
        batches(size=size, drop_last=True, world=world)


def test_fault_while_assembling_is_raised_where_the_batch_is_asked_for():
    def make(n):
        if n == 2:
            raise KeyError("video9")
        return n

    made = prefetched(make, range(5))

    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(KeyError, match="video9"):
        next(made)


def test_closing_early_ends_the_thread():
    before = threading.active_count()
    made = prefetched(lambda n: n, range(10**9))
    next(made)

    made.close()

    assert threading.active_count() == before


def test_no_result_is_overwritten_while_it_is_in_use():
    slots = [np.zeros(1) for _ in range(3)]

    def make(n):
        slots[n % 3][0] = n
        return slots[n % 3]

    assert all(value[0] == n for n, value in enumerate(prefetched(make, range(3000))))


def test_pairs_stand_together_in_every_batch_of_even_size():
    video_of = np.repeat(
        np.arange(12), 3
    )  # three captions each; videos 0 and 1, 2 and 3 ... are pairs

    order = pair_order(video_of, seed=1, epoch=0)

    assert sorted(order) == list(range(36))
    first, second = video_of[order].reshape(-1, 2).T
    assert (first // 2 == second // 2).all() and (first != second).all()
    assert len(set(video_of[order[:12]])) == 12  # a round shows every video once
    assert not np.array_equal(order, pair_order(video_of, seed=1, epoch=1))


def test_pairs_stay_pairs_when_a_video_between_them_is_left_out():
    corpus = dataclasses.replace(
        toy.corpus(4, 8), listed=np.array([0, 2, 3, 5]), video_of=np.arange(8) % 4
    )

    rows = TrainBatches(corpus, 8, seed=0, drop_last=True, pairs_together=True).rows(0)[0]

    places = corpus.places[corpus.video_of[rows]].tolist()
    assert all(abs(places.index(2, k) - places.index(3, k)) == 1 for k in (0, 4))


@pytest.mark.parametrize(("size", "drop_last", "world", "expected"), [
    (12, False, World(), 2), (12, True, World(), 12), (10, False, World(), 10), (16, False, World(0, 4), 16),
])  # fmt: skip
def test_the_smallest_batch_is_known_before_it_comes(size, drop_last, world, expected):
    made = batches(size, drop_last=drop_last, world=world)

    assert made.smallest == expected
    assert min(len(rows) for rows in made.rows(0)) * world.size == expected
