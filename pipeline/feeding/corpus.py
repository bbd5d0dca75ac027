"""A split as the loader sees it: token ids of every caption, the row of its video, features and
soft tags per video.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from models.base import Inputs
from pipeline import log
from pipeline.datasets.base import Annotations
from pipeline.errors import ConfigError, DataError
from pipeline.feeding.frame_choice import Samples
from pipeline.text.vocab import Vocabulary
from pipeline.text.words import clean_words, raw_words

# share of words; 16 % is the most that a published corpus has, with captions that are not cleaned
_MOST_UNKNOWN = 0.5


class Memory(Protocol):
    """Where a batch is put: `empty(name, shape, dtype)` gives an uninitialised tensor."""

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor: ...


class Sentences:
    """Token ids of all captions in one array: N sentences of any length >= 1.

    width: of every batch (models that read a fixed number of tokens); 0: as wide as the longest of
    the batch.
    """

    def __init__(self, sentences: Sequence[Sequence[int]], width: int = 0):
        self.lengths = np.array([len(s) for s in sentences], dtype=np.int64)
        assert self.lengths.all(), "a sentence without tokens has nothing to encode"
        assert not width or self.lengths.max(initial=0) <= width, (
            "a sentence is wider than the batch"
        )
        self._width = width
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        self._ids = np.fromiter(
            (i for s in sentences for i in s), np.int64, int(self.lengths.sum())
        )

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """text (B, L) int64 padded with 0, text_mask (B, L) bool; L is the longest of the batch, or
        `width`.
        """
        lengths = self.lengths[rows]
        columns = np.arange(self._width or lengths.max())
        mask = columns < lengths[:, None]
        places = np.where(mask, self._starts[rows, None] + columns, 0)
        return {
            "text": torch.from_numpy(np.where(mask, self._ids[places], 0)),
            "text_mask": torch.from_numpy(mask),
        }


class Videos(Protocol):
    """Videos of a split, by row."""

    def __len__(self) -> int: ...

    def batch(
        self, rows: np.ndarray, memory: Memory, samples: Samples | None = None
    ) -> dict[str, Tensor]:
        """What a batch holds of the videos at `rows`. samples: what random choices are keyed by;
        None: no training.
        """


class FeatureVideos:
    """Frame features of videos. `read(video_id)` gives (T, dim) float, at best a view of a map."""

    def __init__(self, read: Callable[[str], np.ndarray], video_ids: list[str], dim: int):
        self._read, self._ids, self._dim = read, video_ids, dim

    def __len__(self) -> int:
        return len(self._ids)

    def batch(
        self, rows: np.ndarray, memory: Memory, samples: Samples | None = None
    ) -> dict[str, Tensor]:
        """features (B, T, dim) float32 padded with 0, video_mask (B, T) bool; T is the longest of
        the batch.
        """
        views = [self._read(self._ids[row]) for row in rows]
        lengths = np.array([len(view) for view in views])
        longest = int(lengths.max())
        features = memory.empty("features", (len(rows), longest, self._dim), torch.float32)
        for place, view in zip(
            features.numpy(), views, strict=True
        ):  # one copy of T * dim numbers each
            place[: len(view)] = view
            place[len(view) :] = 0
        return {
            "features": features,
            "video_mask": torch.from_numpy(np.arange(longest) < lengths[:, None]),
        }


@dataclass(frozen=True)
class Corpus:
    """Captions and videos of one split. video_of: row of each caption's video in video_ids, int64
    (N_t,).

    tags: soft labels (N_v, n_tags) float32, or None. listed: place of each video in the list of the
    split, some of which may have been left out; None: none was.
    """

    caption_ids: list[str]
    video_ids: list[str]
    video_of: np.ndarray
    texts: Sentences
    videos: Videos
    tags: np.ndarray | None = None
    listed: np.ndarray | None = None

    @property
    def places(self) -> np.ndarray:
        """Place of each video in the list of its split, int64 (N_v,)."""
        return np.arange(len(self.video_ids)) if self.listed is None else self.listed


class VideoStore(Protocol):
    """Where what a model sees of videos is read."""

    noun: str  # what a video lacks that has a fault
    where: str  # what is read, for people

    def faults(self, video_ids: list[str]) -> dict[str, str]:
        """Why videos cannot be read, by id; nothing about those that can."""

    def videos(self, video_ids: list[str]) -> Videos:
        """The videos, none of which has a fault."""


@dataclass(frozen=True)
class Store:
    """Where features are read: `read(video_id)` gives (T, dim); `holds(video_id)` says whether it
    is there.
    """

    read: Callable[[str], np.ndarray]
    holds: Callable[[str], bool]
    dim: int
    where: str = "features"
    noun: ClassVar[str] = "features"

    def faults(self, video_ids: list[str]) -> dict[str, str]:
        return {i: "" for i in video_ids if not self.holds(i)}

    def videos(self, video_ids: list[str]) -> FeatureVideos:
        return FeatureVideos(self.read, video_ids, self.dim)


def encode_texts(texts: list[str], vocabulary: Vocabulary, clean: bool = True) -> list[list[int]]:
    """Word ids of each text, at least one: a text without a listed word is one unknown word (0
    where there is none).

    Boundaries (<start>, <end>) are not among them: models that read such add them themselves.
    """
    nothing = [vocabulary.unknown or 0]
    return [vocabulary.encode(text, clean, boundaries=False) or nothing for text in texts]


def text_encoder(
    inputs: Inputs, vocabulary: Vocabulary | None, clean: bool = True
) -> Callable[[list[str]], list[list[int]]]:
    """A function of texts -> ids as a model with these inputs reads them: words of a vocabulary, or
    CLIP's byte pairs.

    Byte pairs: start, at most inputs.tokens - 2 ids, end (docs/specs/clip-backbone.md, section 6).
    ConfigError without vocabulary.
    """
    if inputs.text == "clip_bpe":
        from pipeline.text.clip_bpe import ClipBpe

        bpe = ClipBpe.load()

        def encode(texts: list[str]) -> list[list[int]]:
            ids = [bpe.encode(text) for text in texts]
            _tell_of_long(ids, inputs.tokens)
            return [[bpe.start, *sentence[: inputs.tokens - 2], bpe.end] for sentence in ids]

        return encode
    if vocabulary is None:
        raise ConfigError(
            "the model reads words", where="train", fix="Add a vocab step, or give --vocab."
        )
    return lambda texts: encode_texts(texts, vocabulary, clean)


def _tell_of_long(ids: list[list[int]], limit: int) -> None:
    """Warn of texts whose ends are not read; start and end count among `limit`."""
    long = [2 + len(sentence) for sentence in ids if 2 + len(sentence) > limit]
    if long:
        log.warning(
            f"{len(long):,} of {len(ids):,} texts have more tokens than the {limit} that the model"
            f" reads (at most {max(long):,}); their ends are left out. The recipe's options.words"
            " says how many are read"
        )


def check_vocabulary(vocabulary: Vocabulary, texts: list[str], clean: bool, where: object) -> None:
    """Raise DataError if most words of the texts are not in the vocabulary: it was made from
    another corpus.
    """
    if what := mostly_unknown(vocabulary, texts, clean):
        raise DataError(
            what,
            where=where,
            fix=(
                "Make the vocabulary from these captions (vocab step); is its min_count too high"
                " for so few of them?"
            ),
        )


def mostly_unknown(vocabulary: Vocabulary, texts: list[str], clean: bool) -> str:
    """That most words of the texts are not in the vocabulary, with examples; empty if most are."""
    share = vocabulary.unknown_share(texts, clean)
    if share <= _MOST_UNKNOWN:
        return ""
    split = clean_words if clean else raw_words
    unknown = list(
        dict.fromkeys(
            word for text in texts[:50] for word in split(text) if word not in vocabulary.ids
        )
    )
    return (
        f"{share:.0%} of the words of {len(texts):,} captions are not among its"
        f" {len(vocabulary):,}: {', '.join(unknown[:3])}, ..."
    )


def open_corpus(
    annotations: Annotations,
    split: str,
    store: VideoStore,
    encode: Callable[[list[str]], list[list[int]]],
    labels: Callable[[list[str]], np.ndarray] | None = None,
    width: int = 0,
) -> Corpus:
    """The corpus of a split. encode: texts -> token ids; labels: video ids -> soft tags (N_v,
    n_tags); width: as in Sentences.

    Videos that cannot be read (set aside by an earlier step, damaged) are left out with their
    captions, and counted in a warning. Raises DataError if nothing is left.
    """
    part = annotations.split(split)
    faults = store.faults(part.video_ids)
    video_ids = [i for i in part.video_ids if i not in faults]
    column = {video_id: n for n, video_id in enumerate(video_ids)}
    captions = [c for c in annotations.texts(split) if c.video_id in column]
    examples = ", ".join(f"{i} ({why})" if why else i for i, why in list(faults.items())[:3])
    if not captions:
        raise DataError(
            f"none of the {len(part.video_ids):,} videos of {split} has {store.noun}:"
            f" {examples or 'no captions'}",
            where=f"split {split}",
            fix="Run the step that makes the tensors for this dataset; are the ids the same?",
        )
    if faults:
        log.warning(
            f"{split}: {len(faults):,} of {len(part.video_ids):,} videos have no {store.noun} and"
            f" are left out with {len(part.caption_ids) - len(captions):,} captions:"
            f" {examples}{', ...' * (len(faults) > 3)}"
        )
    return Corpus(
        [c.id for c in captions],
        video_ids,
        np.array([column[c.video_id] for c in captions], dtype=np.int64),
        Sentences(encode([c.text for c in captions]), width),
        store.videos(video_ids),
        labels(video_ids) if labels else None,
        np.array([n for n, i in enumerate(part.video_ids) if i not in faults], dtype=np.int64),
    )
