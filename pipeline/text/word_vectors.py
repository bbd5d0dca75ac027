"""Word vectors: trained on captions, and laid out as the weight matrix of a vocabulary.
`vector_files` reads files.

Source: dongYoun2/dual-encoding-system: scripts/word2vec.py (docs/specs/dual-encoding.md, section
10.3). As published that script looked every word up wrongly, hid the error and wrote noise for all
words; `weight_matrix` does what was meant, and gives that noise when it gets no vectors.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from pipeline.errors import DataError
from pipeline.text.words import Letters, clean_words


class Training(BaseModel, extra="forbid"):
    """How gensim learns vectors from the captions, with negative sampling."""

    dim: int = Field(
        500, ge=1, le=4096, description="values per word (500: as the published vectors)"
    )
    window: int = Field(5, ge=1, description="words to either side that count as context")
    epochs: int = Field(20, ge=1, description="passes over the captions")
    skip_gram: bool = Field(
        True, description="predict the context from the word (else the word from its context)"
    )
    negative: int = Field(5, ge=1, description="noise words per true word")


@dataclass(frozen=True)
class Vectors:
    """Vectors of the words that were found: {word: float32 (dim,)}."""

    rows: Mapping[str, np.ndarray]
    dim: int


def weight_matrix(words: list[str], vectors: Vectors, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Initial embedding, float32 (words, dim), and which of its rows are no word vectors, bool
    (words,).

    Row 0 (padding) is zero; a word without a vector gets uniform(-1, 1) values, drawn in row order
    from numpy's legacy generator with `seed`, as published. Raises DataError if a vector is not
    finite.
    """
    noise = np.random.RandomState(seed)
    matrix = np.zeros((len(words), vectors.dim), dtype=np.float32)
    missing = np.array(
        [n == 0 or word not in vectors.rows for n, word in enumerate(words)], dtype=bool
    )
    for n in range(1, len(words)):
        matrix[n] = noise.uniform(-1, 1, vectors.dim) if missing[n] else vectors.rows[words[n]]
    broken = [words[n] for n in np.flatnonzero(~np.isfinite(matrix).all(axis=1))]
    if broken:
        raise DataError(
            f"{len(broken):,} of {len(words):,} words have values that are not finite:"
            f" {', '.join(broken[:3])}",
            where="word vectors",
            fix="Take the vectors from their publisher again.",
        )
    return matrix, missing


def train(
    texts: Iterable[str], options: Training, seed: int, letters: Letters = "ascii"
) -> Vectors:
    """Vectors of all cleaned words of the captions. Same captions, options and seed: same bytes, in
    any process. letters: the rule that words are made by, that of the vocabulary.

    Raises DataError if there are no words.
    """
    from gensim.models import Word2Vec

    sentences = [words for text in texts if (words := clean_words(text, letters))]
    if not sentences:
        raise DataError(
            "no caption has a word",
            where="word2vec",
            fix="Give captions, or vectors with `source`.",
        )
    model = Word2Vec(
        sentences,
        vector_size=options.dim,
        window=options.window,
        epochs=options.epochs,
        sg=int(options.skip_gram),
        negative=options.negative,
        min_count=1,
        seed=seed,
        workers=1,  # more threads update the same vectors in an order that differs from run to run
        hashfxn=_hash,
    )
    return Vectors({word: model.wv[word] for word in model.wv.index_to_key}, options.dim)


def _hash(word: str) -> int:
    """Python's own hash of a word differs from process to process."""
    return zlib.crc32(word.encode())
