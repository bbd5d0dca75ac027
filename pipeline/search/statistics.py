"""What a fusion takes from all scores, for an index, which has no captions to score.

The statistics of an evaluation are taken where there are any. Else sentences are made of the words
that the model knows, and scored with windows of the index: their range is that of typed queries,
near enough to weigh two scores against each other, and the same for every query.
"""

import numpy as np
import torch

from models.base import RetrievalModel
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.stores.index.reader import IndexStore

_SENTENCES, _WINDOWS, _WORDS = 128, 2_048, 6


@torch.inference_mode()
def statistics_of(model: RetrievalModel, info: ModelInfo, store: IndexStore) -> dict[str, float]:
    """`RetrievalModel.statistics` of made-up sentences and evenly spaced windows."""
    if not store.rows:
        return {}
    device = next(model.parameters()).device
    sentences = info.text_encoder.sentences(_sentences(info))
    batch = sentences.batch(np.arange(len(sentences.lengths)))
    text = model.encode_text({name: value.to(device) for name, value in batch.items()})
    rows = np.unique(np.linspace(0, store.rows - 1, _WINDOWS).round().astype(np.int64))
    video = {
        name: torch.from_numpy(values.astype(np.float32)).to(device)
        for name, values in store.encodings(rows).items()
    }
    return model.statistics(model.score(text, video))


def _sentences(info: ModelInfo) -> list[str]:
    """Words of the vocabulary, evenly spaced, a few in each sentence."""
    words = [word for word in info.vocabulary.words if word.isalpha()] or ["a"]
    count = max(1, min(_SENTENCES, len(words) // _WORDS))
    rows = np.linspace(0, len(words) - 1, count * _WORDS).round().astype(np.int64)
    return [" ".join(words[n] for n in part) for part in rows.reshape(_WORDS, count).T]
