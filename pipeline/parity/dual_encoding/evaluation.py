"""Handler of system "dual-encoding", kind "evaluate-end-to-end": features and captions to metrics,
in chunks.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.dual_encoding.model import DualEncoding, build
from pipeline.datasets import base
from pipeline.evaluation.encode import encode_corpus
from pipeline.evaluation.metrics import Counts, count, count_v2t, summary
from pipeline.evaluation.retrieve import score
from pipeline.feeding.corpus import Corpus, open_corpus
from pipeline.feeding.inputs import open_store
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, equal
from pipeline.parity.dual_encoding.model import opened
from pipeline.text import vocab
from pipeline.text.encoder import TextEncoder


def evaluate(case: Case) -> Iterator[Comparison]:
    """Scores and metrics for each recorded chunk size: padded pooling makes them depend on it."""
    files = {meaning: name for name, meaning in case.info["files"].items()}
    options, assets = yield from opened(case, files["model"])
    corpus = _corpus(case, files)
    yield equal("video_ids", corpus.video_ids, case.outputs["video_ids"])
    yield equal("caption_ids", corpus.caption_ids, case.outputs["caption_ids"])
    words = corpus.texts.batch(np.arange(len(corpus.caption_ids)))
    flat = words["text"][words["text_mask"]].numpy()
    yield equal("caption_word_indices_flat", flat, case.outputs["caption_word_indices_flat"])
    yield equal("caption_lengths", corpus.texts.lengths, case.outputs["caption_lengths"])
    model, tolerance = build(options, assets).eval(), Tolerance.parse(case.info["tolerance"])
    for size in case.info["batch_sizes"]:
        for name, values in _in_chunks(model, corpus, size).items():
            yield close(
                f"batch{size}/{name}", values, case.outputs[f"batch{size}/{name}"], tolerance
            )


def _corpus(case: Case, files: Mapping[str, str]) -> Corpus:
    """Captions split at white space with their case kept, as published."""
    dataset = base.open_dataset(
        {"type": "caption_files", "root": str(case.path(files["caption file"]))}
    )
    words = vocab.load(case.path(files["vocabulary"]))
    store = open_store(None, case.path(files["BigFile folder"]))
    return open_corpus(
        dataset.load(), "train", store, TextEncoder("words", vocabulary=words, clean=False)
    )


@torch.inference_mode()
def _in_chunks(
    model: DualEncoding, corpus: Corpus, size: int
) -> Mapping[str, np.ndarray | Tensor | list[float]]:
    encoded = encode_corpus(model, corpus, chunk=size)
    scores = score(model, encoded.text, encoded.video)
    fused = model.fuse(scores, encoded.text, encoded.video)
    v2t, _ = count_v2t(fused.v2t.numpy(), corpus.video_of)
    return {f"sim_{space}_v2t": values.T for space, values in scores.items()} | {
        "fused": fused.v2t,
        "v2t_metrics": _six(v2t),
        "t2v_metrics": _six(count(fused.t2v.numpy(), corpus.video_of)),
    }


def _six(counts: Counts) -> list[float]:
    values = summary(counts.ranks())
    return [values[key] for key in ("R1", "R5", "R10", "Rsum", "MdR", "MnR")]


HANDLERS = {"evaluate-end-to-end": evaluate}
