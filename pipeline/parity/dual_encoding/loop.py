"""Handlers of system "dual-encoding" for the training loop: the schedule after validations, and
batches of captions.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.datasets import base
from pipeline.feeding.corpus import open_corpus
from pipeline.feeding.inputs import open_store
from pipeline.feeding.loader import Slot
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, equal
from pipeline.recipes.options import ScheduleOptions
from pipeline.text import tag_files, vocab
from pipeline.text.encoder import TextEncoder
from pipeline.training.schedule import Schedule

_SCORES = {
    "total_sum_r": lambda v2t, t2v: v2t + t2v,
    "v2t_sum_r": lambda v2t, t2v: v2t,
    "t2v_sum_r": lambda v2t, t2v: t2v,
}


def lr_schedule(case: Case) -> Iterator[Comparison]:
    """Yield what the plateau schedule makes of the recorded sums of recalls of each epoch."""
    tolerance = Tolerance.parse(case.info["tolerance"])
    for n, settings in enumerate(case.info["runs"]):
        recorded = case.outputs[f"run{n}"]
        yield close(f"run{n}", _trace(settings, recorded[:, :3]), recorded, tolerance)


def _trace(settings: dict, validations: np.ndarray) -> np.ndarray:
    options = ScheduleOptions(
        name="plateau",
        on_best=settings["lr_decay_rate"],
        factor=settings["lr_decay_patience_rate"],
        wait=settings["lr_decay_patience_cnt"],
        reload_best=True,
    )
    schedule = Schedule(
        options,
        lr=settings["lr"],
        horizon_steps=1,
        tie="last",
        stop_after=settings["early_stop_patience_cnt"],
    )
    rows = []
    for epoch, v2t, t2v in validations:
        verdict = schedule.judge(_SCORES[settings["val_metric"]](v2t, t2v))
        patience = -1 if verdict.stop else schedule.patience
        # the published program runs the test in the middle of the validation that stops it
        state = [
            schedule.lr(0),
            schedule.best,
            patience,
            verdict.is_best,
            verdict.reload_best,
            verdict.stop,
            verdict.stop,
        ]
        rows.append([epoch, v2t, t2v, *state])
    return np.array(rows, dtype=np.float64)


def dataset_and_collate(case: Case) -> Iterator[Comparison]:
    """Yield one batch by caption indices: ids, padded features, word ids (split at white space, as
    published), soft tags.
    """
    dataset = base.open_dataset({"type": "caption_files", "root": str(case.path("captions.txt"))})
    words = vocab.load(case.path("vocab.json"))
    tags = tag_files.read(case.path("tag_vocab.json"), case.path("video_tag.txt"))
    store = open_store(None, case.path("feature"))
    corpus = open_corpus(
        dataset.load(),
        "train",
        store,
        TextEncoder("words", vocabulary=words, clean=False),
        tags.matrix,
    )
    rows = case.inputs["dataset_indices"]
    videos = corpus.video_of[rows]
    text, video = corpus.texts.batch(rows), corpus.videos.batch(videos, Slot())

    tolerance = Tolerance.parse(case.info["tolerance"])
    yield equal("dataset_length", len(corpus.caption_ids), case.info["dataset_length"])
    yield equal("video_ids", [corpus.video_ids[v] for v in videos], case.outputs["video_ids"])
    yield equal("caption_ids", [corpus.caption_ids[r] for r in rows], case.outputs["caption_ids"])
    yield close("video_batch", video["features"].numpy(), case.outputs["video_batch"], tolerance)
    yield equal("video_lengths", video["video_mask"].sum(1).numpy(), case.outputs["video_lengths"])
    yield equal("caption_batch", text["text"].numpy(), case.outputs["caption_batch"])
    yield equal(
        "caption_lengths", text["text_mask"].sum(1).numpy(), case.outputs["caption_lengths"]
    )
    yield close("tag_labels", corpus.tags[videos], case.outputs["tag_labels"], tolerance)


HANDLERS = {"lr-schedule": lr_schedule, "dataset-and-collate": dataset_and_collate}
