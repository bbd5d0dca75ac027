"""Handler of system "clip-tokenizer": recorded strings, cleaned, cut into ids, padded."""

import json
from collections.abc import Iterator

import numpy as np

from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, equal
from pipeline.text.clip_bpe import SHA256, TABLE, ClipBpe, clean


def tokenize(case: Case) -> Iterator[Comparison]:
    """Yield every recorded string alone, and all of them as batches of each recorded length."""
    bpe = ClipBpe.load()
    lines = (
        case.path("pairs.jsonl").read_text(encoding="utf-8").split("\n")
    )  # some texts hold other line breaks
    pairs = [json.loads(line) for line in lines if line]
    texts = [pair["text"] for pair in pairs]
    ids = [bpe.encode(text) for text in texts]
    ours = {
        "file": TABLE,
        "sha256": SHA256,
        "size": bpe.size,
        "start_id": bpe.start,
        "end_id": bpe.end,
    }
    yield equal("vocabulary", ours, case.info["vocabulary"])
    yield equal("n", len(pairs), case.info["n"])
    yield equal("longest_ids", max(map(len, ids)), case.info["longest_ids"])
    yield equal("n_longer_than_75", sum(len(i) > 75 for i in ids), case.info["n_longer_than_75"])
    for pair, own in zip(pairs, ids, strict=True):
        yield equal(
            f"pairs[{pair['i']}]", [clean(pair["text"]), own], [pair["cleaned"], pair["ids"]]
        )
    with np.load(case.path("padded.npz"), allow_pickle=False) as padded:
        for name in padded.files:
            rows, mask = bpe.batch(texts, padded[name].shape[1])
            yield equal(f"padded[{name}]", mask if name.startswith("mask_") else rows, padded[name])


HANDLERS = {"tokenize": tokenize}
