"""Open what an evaluation needs: a checkpoint's model, and a split as that model reads it."""

from pathlib import Path

import torch

from models.base import RetrievalModel
from pipeline.datasets.base import Annotations
from pipeline.errors import DataError
from pipeline.training.checkpoint import ModelInfo, load_model
from pipeline.training.corpus import Corpus, Store, open_corpus


def open_model(path: Path, device: torch.device) -> tuple[RetrievalModel, ModelInfo]:
    """The model of a checkpoint on a device, in eval mode. DataError, also for a model whose inputs have no reader."""
    model, info = load_model(path)
    if (model.inputs.text, model.inputs.video) != ("words", "features"):
        raise DataError(
            f"the model reads {model.inputs.text} and {model.inputs.video}; only words and features have a loader yet",
            where=path,
            fix="Evaluate a model that reads words and features.",
        )
    return model.to(device), info


def open_split(info: ModelInfo, annotations: Annotations, split: str, store: Store) -> Corpus:
    """A split with the captions as the ids this model was trained on. Raises DataError if nothing of it can be read."""
    if store.dim != info.facts.get("feature_dim", store.dim):
        raise DataError(
            f"the features have {store.dim:,} numbers per frame, the model expects {info.facts['feature_dim']:,}",
            where="evaluate",
            fix="Use the features that the model was trained on.",
        )
    return open_corpus(annotations, split, store, info.encode)
