"""Frames of a split from each source: right frames, right size, nothing silently black, the same
for any threads.
"""

import logging
import shutil

import numpy as np
import pytest
import torch

from pipeline.core.artefact import Artefact
from pipeline.errors import ConfigError, DataError
from pipeline.feeding.corpus import Corpus, open_corpus
from pipeline.feeding.frame_choice import Samples
from pipeline.feeding.frames import FrameReader
from pipeline.feeding.inputs import Given, open_frames
from pipeline.feeding.loader import Slot, TrainBatches
from pipeline.processes import World
from pipeline.recipes.options import FrameOptions
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.text.encoder import TextEncoder
from pipeline.text.sentences import Sentences
from pipeline.text.vocab import Vocabulary
from pipeline.video.crop import center_crop
from tests.feeding.test_corpus import annotations
from tests.stages.store_runs import frames, tensors, videos
from tests.stores.frame_store.frame_clips import build_store, images, write_video

SIZE = 32
WORDS = TextEncoder("words", vocabulary=Vocabulary({"a": 0}))
IDS = [f"video{n:02d}" for n in range(4)]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Given:
    """Four videos of 3 to 6 frames, 64x48 pixels, as files, as a store, and cropped to 32 pixels in
    a cache.
    """
    folder = tmp_path_factory.mktemp("frames")
    files = videos(folder / "in", 4)
    store = frames(files, folder / "store", layout="raw")
    tensors({"store": store}, folder / "tensors", frames={"size": SIZE, "fit": "center_crop"})
    return Given(
        Artefact("tensors", folder / "tensors"), None, store, files, folder / "digests.jsonl"
    )


def reader(given: Given, threads: int = 2, m: int = 4, **options: object) -> FrameReader:
    chosen = FrameOptions(fit="center_crop", **options)
    return FrameReader(open_frames(given, SIZE, chosen), m, chosen, threads=threads)


def batch(
    made: FrameReader, rows: list[int], samples: Samples | None = None
) -> dict[str, torch.Tensor]:
    assert not made.faults(IDS)
    return made.videos(IDS).batch(np.array(rows), Slot(), samples)


@pytest.mark.parametrize("source", ["tensors", "store", "videos"])
def test_every_source_gives_the_same_frames(given, source):
    found = batch(reader(given, source=source), [3, 0])

    whole = FrameStore.open(given.store.path).read(IDS[3])
    expected = center_crop(whole, SIZE)[[0, 2, 3, 5]]
    assert found["frames"].shape == (2, 4, SIZE, SIZE, 3) and found["frames"].dtype == torch.uint8
    assert np.abs(found["frames"][0].numpy().astype(int) - expected).max() <= 1
    assert found["video_mask"].tolist() == [[True] * 4, [True, True, True, False]]
    assert torch.equal(found["frames"][1, 3], found["frames"][1, 2])


@pytest.mark.parametrize("source", ["store", "videos"])
def test_frames_of_another_size_are_resized_and_cropped(given, source):
    options = FrameOptions(source=source, fit="resize_crop")
    made = FrameReader(open_frames(given, SIZE, options), 2, options)

    cropped = batch(reader(given, m=2), [1])["frames"].float()
    assert (
        batch(made, [1])["frames"].float() - cropped
    ).abs().mean() > 1  # more of the picture is seen


def test_batch_does_not_depend_on_the_number_of_threads(given):
    samples = Samples(1, 2, np.array([7, 8, 9, 10, 11]))
    one, three = (batch(reader(given, n), [2, 0, 3, 1, 3], samples) for n in (1, 3))

    assert torch.equal(one["frames"], three["frames"]) and torch.equal(
        one["video_mask"], three["video_mask"]
    )


def test_fastest_source_that_is_given_is_used(given):
    without = Given(None, None, given.store, given.videos, given.digests)
    only = Given(None, None, None, given.videos, given.digests)

    assert [
        open_frames(g, SIZE, FrameOptions()).where.split()[1] for g in (given, without, only)
    ] == [
        "cache",
        "store",
        "video",
    ]
    with pytest.raises(ConfigError, match="no frames to read"):
        open_frames(Given(), SIZE, FrameOptions())
    with pytest.raises(ConfigError, match="no store to read frames from"):
        open_frames(Given(given.tensors), SIZE, FrameOptions(source="store"))


def test_cache_of_another_size_is_refused_with_the_option_to_change(given):
    with pytest.raises(DataError, match="32x32 pixels, the model reads 64x64") as caught:
        open_frames(given, 64, FrameOptions())
    assert "size: 64" in caught.value.fix


def damaged(folder, n_videos: int = 4) -> FrameReader:
    """A store of v0 ... in which one byte of v1 is another."""
    clips = {f"v{n}": images(n, 3, SIZE, SIZE) for n in range(n_videos)}
    path = FrameStore.open(build_store(folder, clips)).path
    data = path.read_bytes()
    with FrameStore.open(path)._open().value("v1") as value:
        place = data.index(bytes(value(0, value.length))) + value.length - 20
    path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
    return FrameReader(
        open_frames(Given(store=Artefact("frame_store", folder)), SIZE, FrameOptions()),
        2,
        FrameOptions(),
    )


def test_video_that_cannot_be_read_is_reported_once_and_left_out(tmp_path, caplog):
    store = damaged(tmp_path / "store")

    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        corpus = open_corpus(annotations(), "train", store, WORDS)

    assert corpus.video_ids == ["v0", "v2", "v3"] and corpus.places.tolist() == [0, 2, 3]
    assert (
        "1 of 4 videos have no readable frames and are left out with 2 captions: v1 ("
        in caplog.text
    )
    assert "checksum" in caplog.text and caplog.text.count("v1") == 2


def test_split_of_which_nothing_can_be_read_is_an_error(tmp_path):
    store = damaged(tmp_path / "store", 2)
    store._counts["v0"] = "not there"

    with pytest.raises(
        DataError, match="none of the 2 videos of train has readable frames: v0 .not there., v1"
    ):
        open_corpus(annotations(2), "train", store, WORDS)


def test_video_that_vanishes_during_training_ends_it_by_name(given, tmp_path):
    files = shutil.copytree(given.videos.path, tmp_path / "in")
    made = reader(Given(videos=Artefact("video_files", files)))
    assert not made.faults(IDS)
    (files / f"{IDS[2]}.mp4").unlink()

    with pytest.raises(DataError, match="video02: its frames could be read before and now cannot"):
        made.videos(IDS).batch(np.array([1, 2]), Slot())


def train_batches(given: Given, world: World = World()) -> TrainBatches:
    made = reader(given, m=2)
    made.faults(IDS)
    texts, video_of = Sentences([[1, 2]] * 16), np.arange(16) % 4
    corpus = Corpus([f"c{n}" for n in range(16)], IDS, video_of, texts, made.videos(IDS))
    return TrainBatches(corpus, 4, seed=5, drop_last=True, world=world)


def test_epoch_entered_in_the_middle_draws_the_same_frames(given):
    whole = [batch.tensors["frames"].clone() for batch in train_batches(given).epoch(2)]
    rest = [batch.tensors["frames"].clone() for batch in train_batches(given).epoch(2, start=2)]

    assert all(map(torch.equal, whole[2:], rest))
    other = [batch.tensors["frames"].clone() for batch in train_batches(given).epoch(3)]
    assert not all(map(torch.equal, whole, other))


def test_processes_together_draw_the_frames_of_one(given):
    alone = next(train_batches(given).epoch(0)).tensors["frames"].clone()
    parts = [
        next(train_batches(given, World(rank, 2)).epoch(0)).tensors["frames"].clone()
        for rank in range(2)
    ]

    assert torch.equal(torch.cat(parts), alone)


@pytest.mark.parametrize("source", ["store", "tensors", "videos"])
def test_model_of_one_frame_a_second_reads_every_third_of_three(tmp_path, source, caplog):
    write_video(tmp_path / "in" / "a.mp4", images(0, 7, SIZE, SIZE), fps=3)
    files = Artefact("video_files", tmp_path / "in")
    store = frames(files, tmp_path / "store", layout="raw")
    tensors({"store": store}, tmp_path / "tensors", frames={"size": SIZE})
    made = Given(
        Artefact("tensors", tmp_path / "tensors"), None, store, files, tmp_path / "digests.jsonl"
    )
    options = FrameOptions(source=source, fps=1)
    slow = FrameReader(open_frames(made, SIZE, options), 4, options)

    assert not slow.faults(["a"])
    found = slow.videos(["a"]).batch(np.zeros(1, np.int64), Slot())

    whole = FrameStore.open(store.path).read("a")
    assert found["video_mask"].tolist() == [[True, True, True, False]]
    assert np.abs(found["frames"][0].numpy().astype(int) - whole[[0, 3, 6, 6]]).max() <= 1
    assert "at" not in caplog.text


def test_store_that_is_slower_than_the_model_is_said_once(tmp_path, caplog):
    for name in "ab":
        write_video(tmp_path / "in" / f"{name}.mp4", images(0, 4, SIZE, SIZE), fps=1)
    store = frames(Artefact("video_files", tmp_path / "in"), tmp_path / "store")
    options = FrameOptions(fps=3)
    made = FrameReader(open_frames(Given(store=store), SIZE, options), 2, options)

    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        made.faults(["a", "b"])

    assert caplog.text.count("holds 1 fps") == 1
    assert "the model was made for 3 fps" in caplog.text
