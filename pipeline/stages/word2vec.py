"""Lay out word vectors for the words of a vocabulary.

    python cli.py word2vec --in vocab --source data/word2vec --out vectors

Vectors come from a published file, are learnt from the captions with gensim, or are random. Row 0
(padding) is zero. A word without a vector, special entries included, gets uniform(-1, 1) values
from the seed.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, Field, model_validator

from pipeline import log
from pipeline.core.files import DigestCache, atomic_path, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import STATE, Record, digest
from pipeline.datasets import base
from pipeline.errors import ConfigError, DataError
from pipeline.text import vector_files, vocab, word_vectors
from pipeline.text.word_vectors import Training, Vectors
from pipeline.text.words import Letters

FILE = "pretrained_weight.npy"


class Stage(Base):
    needs: ClassVar[dict[str, Need]] = {
        "vocab": Need("vocab"),
        "annotations": Need(
            "annotations", optional=True, help="captions to learn vectors from, with --train"
        ),
    }
    makes: ClassVar[str] = "word_vectors"

    class Options(BaseModel, extra="forbid"):
        source: Path | None = Field(
            None,
            description=(
                "vectors: a BigFile folder, a word2vec file (.txt, .vec, .bin, also .gz), or"
                " gensim's .kv"
            ),
        )
        train: Training | None = Field(
            None, description="learn vectors from the captions, e.g. {dim: 300}"
        )
        random: int | None = Field(None, ge=1, description="use random vectors of this many values")
        split: str = Field("train", description="split whose captions are learnt from")
        seed: int = Field(0, ge=0, lt=2**32, description="seed of random vectors and of learning")
        as_published: bool = Field(
            False,
            description="repeat the published defect: random vectors even for words that have one",
        )

        @model_validator(mode="after")
        def _one_origin(self) -> "Stage.Options":
            given = [
                name for name in ("source", "train", "random") if getattr(self, name) is not None
            ]
            if len(given) != 1:
                raise ValueError(
                    "give exactly one of source, train, random (there are:"
                    f" {', '.join(given) or 'none'})"
                )
            return self

    def items(self) -> Iterable[Item]:
        key = [self.inputs["vocab"].content]
        if self.options.train:
            key.append(self._captions_artefact().content)
        if self.options.source:
            key += self._source_digests()
        yield Item("word2vec", digest(key))

    def process(self, item: Item) -> Outcome:
        vocabulary = vocab.load(self.inputs["vocab"].path)
        words = vocabulary.words
        vectors = self._vectors(words, vocabulary.letters)
        if self.options.as_published:
            vectors = Vectors({}, vectors.dim)
        matrix, missing = word_vectors.weight_matrix(words, vectors, self.options.seed)
        with atomic_path(self.out / FILE, ".npy") as path:
            np.save(path, matrix, allow_pickle=False)
        log.info(f"word2vec: {int(missing.sum()):,} of {len(words):,} rows have no vector")
        facts = {"words": len(words), "dim": vectors.dim, "without_vector": int(missing.sum())}
        return Outcome(outputs={FILE: written(self.out / FILE)}, facts=facts)

    def finish(self, records: list[Record]) -> dict:
        return records[0].facts if records else {}

    def _vectors(self, words: list[str], letters: Letters) -> Vectors:
        if self.options.random:
            return Vectors({}, self.options.random)
        if self.options.train:
            annotations = base.load(self._captions_artefact())
            log.once(annotations.said(self.options.split))
            captions = annotations.texts(self.options.split)
            return word_vectors.train(
                (c.text for c in captions), self.options.train, self.options.seed, letters
            )
        vectors = vector_files.read(self.options.source, words)
        if not vectors.rows:
            raise DataError(
                f"none of the {len(words):,} words of the vocabulary has a vector there, e.g."
                f" {', '.join(words[4:8])}",
                where=self.options.source,
                fix="Give vectors for lower-case words in the language of the captions.",
            )
        return vectors

    def _captions_artefact(self):
        artefact = self.inputs.get("annotations")
        if artefact is None:
            raise ConfigError(
                "train needs captions",
                where="word2vec",
                fix="Give --annotations, or vectors with --source.",
            )
        return artefact

    def _source_digests(self) -> list[str]:
        remembered = DigestCache(self.out / STATE / "digests.jsonl")
        try:
            found = [remembered(path) for path in vector_files.files(self.options.source)]
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            raise DataError(what, where=self.options.source, fix="Check `source`.") from error
        remembered.save()
        return found
