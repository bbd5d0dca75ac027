"""From what is asked to what a collection ranks: parts are encoded, weighted and added."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, Fusion, Mismatch, RetrievalModel
from models.parts.noise import KeyedNoise, keys
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.encode import text_keys
from pipeline.search.collection import Collection
from pipeline.search.encode_file import encode_one, encode_picture
from pipeline.search.question import Part
from pipeline.search.ranking import Query, Scorer

_NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Asked:
    """query: what is ranked. unknown: words the model does not know. own: rows of a video that is
    asked for by its id, which are no answers.
    """

    query: Query
    unknown: list[str]
    own: range


@dataclass(frozen=True)
class Asker:
    """A model that turns questions into queries of a collection.

    features: a BigFile of videos that are in no collection, for models that read features. seed: of
    the noise of models that sample.
    """

    model: RetrievalModel
    info: ModelInfo
    collection: Collection
    features: Path | None = None
    seed: int = 0

    @torch.inference_mode()
    def ask(self, parts: list[Part]) -> Asked:
        """Parts as one query: vectors and scores added by their weights, which then sum to 1.

        ConfigError for a sentence without a known word, DataError for an unknown or unreadable
        video or picture.
        """
        whole = sum(abs(part.weight) for part in parts)
        found = [self._part(part) for part in parts]
        shares = [part.weight / whole for part in parts]
        queries = [asked.query for asked in found]
        vector = None
        if all(query.vector is not None for query in queries):
            vector = sum(s * q.vector for s, q in zip(shares, queries, strict=True))
        score = None
        if any(query.score for query in queries):
            score = _weighted([query.score for query in queries], shares)
        whole_lists = any(query.whole for query in queries)
        unknown = list(dict.fromkeys(word for asked in found for word in asked.unknown))
        own = next((asked.own for asked in found if len(asked.own)), range(0))
        return Asked(Query(vector, score, whole_lists), unknown, own)

    def _part(self, part: Part) -> Asked:
        if part.kind == "words":
            return self._words(part.value)
        if part.kind == "picture":
            return Asked(self._by_video(self._picture(Path(part.value).expanduser())), [], range(0))
        return self._video(part.value)

    def _words(self, sentence: str) -> Asked:
        unknown = self.info.text_encoder.unknown_words(sentence)
        texts = self.info.text_encoder.sentences([sentence])
        batch = {k: v.to(self._device) for k, v in texts.batch(np.zeros(1, np.int64)).items()}
        text = self.model.encode_text(batch, self.model.prepare())
        key = text_keys(texts, np.zeros(1, np.int64))
        score = None if self._is_product else self._score_text(text, key)
        # denoisers re-rank the best of all rows, whatever they are
        whole = self.model.second_stage is not None
        return Asked(Query(self._vector(text), score, whole), unknown, range(0))

    def _score_text(self, text: Encoding, key: np.ndarray) -> Scorer:
        """Return what the model's whole ranking says of one text: as `evaluate` scored it."""
        model, statistics = self.model, self.collection.statistics

        def score(encodings: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
            video = self._encoding(encodings)
            noise = KeyedNoise(self.seed, key, keys(names)) if model.second_stage else None
            how = Fusion(
                noise, t2v_rows=np.zeros(1, np.int64), v2t_rows=_NO_ROWS, statistics=statistics
            )
            with torch.inference_mode():
                try:
                    found = model.fuse(model.score(text, video), text, video, how).t2v[0]
                except Mismatch as error:
                    raise DataError(error.what, where="ranking", fix=error.fix) from error
            return found.float().cpu().numpy()

        return score

    def _video(self, value: str) -> Asked:
        rows = self.collection.rows_of(value)
        if self.features is None and len(rows):
            return Asked(self._known(rows[0]), [], rows)
        frames = self.info.recipe.train.frames
        video = encode_one(self.model, self.features, value, self.collection.ids(), frames)
        return Asked(self._by_video(video), [], range(0))

    def _known(self, row: int) -> Query:
        """Return a row of the collection itself."""
        rows = np.array([row])
        if self._is_product:
            return Query(self.collection.summaries[row].astype(np.float32), None)
        return self._by_video(self._encoding(self.collection.encodings(rows)))

    def _picture(self, path: Path) -> Encoding:
        if self.model.inputs.video != "frames":
            raise ConfigError(
                "the model reads features of videos, not pictures",
                where=path,
                fix="Ask with words, or with --video ID.",
            )
        return encode_picture(self.model, path, self.info.recipe.train.frames)

    def _by_video(self, video: Encoding) -> Query:
        score = None
        if not self._is_product:
            model, statistics = self.model, self.collection.statistics

            def score(encodings: dict[str, np.ndarray], _names: list[str]) -> np.ndarray:
                with torch.inference_mode():
                    found = model.similar(video, self._encoding(encodings), statistics)
                return found[0].float().cpu().numpy()

        return Query(self._vector(video), score)

    def _vector(self, encoding: Encoding) -> np.ndarray | None:
        if self.model.summaries == "none":
            return None
        found = self.model.summary(encoding, self.collection.statistics)
        return found[0].float().cpu().numpy()

    def _encoding(self, encodings: dict[str, np.ndarray]) -> Encoding:
        return {
            name: torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(self._device)
            for name, rows in encodings.items()
        }

    @property
    def _is_product(self) -> bool:
        return self.model.summaries == "score"

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def without(asked: Asked, wanted: np.ndarray | None, rows: int) -> np.ndarray | None:
    """Return which rows are answers: all that are wanted, but not the video that was asked for."""
    if not len(asked.own):
        return wanted
    found = np.ones(rows, bool) if wanted is None else wanted.copy()
    found[asked.own.start : asked.own.stop] = False
    return found


def _weighted(scores: list[Scorer], shares: list[float]) -> Scorer:
    def score(encodings: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
        parts = [s * f(encodings, names) for s, f in zip(shares, scores, strict=True)]
        return np.sum(parts, axis=0, dtype=np.float32)

    return scores[0] if shares == [1.0] else score
