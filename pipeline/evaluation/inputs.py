"""Open what an evaluation needs: a checkpoint's model, and a split as that model reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.base import RetrievalModel
from pipeline import log
from pipeline.checkpoints.model_file import ModelInfo, load_model
from pipeline.datasets.base import Annotations, Caption
from pipeline.errors import DataError
from pipeline.evaluation.retrieve import Encoded
from pipeline.feeding.corpus import Corpus, VideoStore, open_corpus
from pipeline.feeding.inputs import Given, open_videos


@dataclass(frozen=True)
class Opened:
    """A model in eval mode on its device, what its checkpoint says besides, and where it reads
    videos.
    """

    model: RetrievalModel
    info: ModelInfo
    store: VideoStore

    def corpus(self, annotations: Annotations, split: str) -> Corpus:
        """Return a split with the captions as the ids this model was trained on. DataError if
        nothing of it can be read.

        Warns if most of their words are unknown to the model: its vocabulary is of another corpus.
        """
        encoder = self.info.text_encoder
        texts = [caption.text for caption in annotations.texts(split)]
        if lost := encoder.lost(texts):
            log.warning(f"{split}: captions split into words for the model: {lost}")
        if what := encoder.mostly_unknown(texts):
            log.warning(
                "evaluate: the model's vocabulary is of another corpus, so scores mean little:"
                f" {what}"
            )
        return open_corpus(annotations, split, self.store, encoder)


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split as one model reads and encodes it: what is ranked, explained and re-ranked.

    name: of the model in results and messages. encoded: every text and video of the corpus.
    """

    name: str
    opened: Opened
    annotations: Annotations
    corpus: Corpus
    encoded: Encoded

    @property
    def captions(self) -> list[Caption]:
        """The queries, in the order of their ranks."""
        return [self.annotations.captions[i] for i in self.corpus.caption_ids]


def open_model(
    path: Path,
    device: torch.device,
    given: Given,
    threads: int | None = None,
    changes: Sequence[str] = (),
) -> Opened:
    """Return the model of a checkpoint and what it reads of videos. DataError if one of them cannot
    be used, or both together.

    threads: that read frames. changes: of the recipe of the checkpoint, as `load_model` takes them.
    """
    model, info = load_model(path, changes)
    train = info.recipe.train
    store = open_videos(model.inputs, given, train.frames, seed=train.seed, threads=threads)
    expected = info.facts.get("feature_dim") or store.dim
    if store.dim != expected:
        raise DataError(
            f"the features have {store.dim:,} numbers per frame, the model expects {expected:,}",
            where="evaluate",
            fix="Use the features that the model was trained on.",
        )
    return Opened(model.to(device), info, store)
