"""What a dataset is made of, in numbers: captions, words, tokens, captions per video, durations;
per split.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.datasets.base import Annotations

SPECIAL = 2  # start and end stand among the tokens of a text


@dataclass(frozen=True)
class Spread:
    """A distribution in seven figures. count: how many values; the rest is 0 where there is
    none.
    """

    count: int = 0
    least: float = 0.0
    median: float = 0.0
    mean: float = 0.0
    p95: float = 0.0
    most: float = 0.0
    total: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        array = np.array(list(values), np.float64)
        if not len(array):
            return cls()
        figures = (
            array.min(),
            np.median(array),
            array.mean(),
            np.quantile(array, 0.95),
            array.max(),
            array.sum(),
        )
        return cls(len(array), *(round(float(figure), 3) for figure in figures))


@dataclass
class SplitFacts:
    """One split. Lists hold one value per caption (words, tokens) or per video (captions, seconds).

    tokens: [] if there is no tokenizer. seconds: of the videos whose duration is known. repeated:
    captions whose text another caption of the split has too (they cannot be told apart).
    """

    texts: int
    videos: int
    words: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    captions: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    repeated: int = 0
    without_caption: int = 0

    def cut(self, limit: int) -> int:
        """Captions that lose words when texts have `limit` tokens: by tokens if they are known,
        else by words.
        """
        return sum(length > limit - SPECIAL for length in self.tokens or self.words)

    def to_json(self, limit: int) -> dict:
        spreads = {
            name: vars(Spread.of(getattr(self, name)))
            for name in ("words", "tokens", "captions", "seconds")
        }
        return {
            "texts": self.texts,
            "videos": self.videos,
            "cut_at": limit,
            "cut": self.cut(limit),
            "cut_is_known_by": "tokens" if self.tokens else "words",
            "repeated_texts": self.repeated,
            "videos_without_caption": self.without_caption,
        } | spreads


def describe(
    annotations: Annotations,
    seconds: Mapping[str, float],
    count_tokens: Callable[[str], int] | None,
) -> dict[str, SplitFacts]:
    """Facts by split. seconds: durations by video id, as far as they are known (else end - start of
    the annotations).

    count_tokens: of a text, start and end not counted; None where there is no tokenizer.
    """
    lengths: dict[str, int] = {}
    found = {}
    for name, split in annotations.splits.items():
        texts = [annotations.captions[i].text for i in split.caption_ids]
        facts = SplitFacts(
            len(texts), len(split.video_ids), words=[len(text.split()) for text in texts]
        )
        if count_tokens:
            for text in texts:
                if text not in lengths:
                    lengths[text] = count_tokens(text)
            facts.tokens = [lengths[text] for text in texts]
        per_video = dict.fromkeys(split.video_ids, 0)
        for caption_id in split.caption_ids:
            video_id = annotations.captions[caption_id].video_id
            per_video[video_id] = per_video.get(video_id, 0) + 1
        facts.captions = list(per_video.values())
        facts.without_caption = facts.captions.count(0)
        facts.repeated = _repeated(texts)
        facts.seconds = [
            s for i in split.video_ids if (s := _seconds(annotations, i, seconds)) is not None
        ]
        found[name] = facts
    return found


def same_as_before(annotations: Annotations) -> dict[str, str]:
    """Return {split: an earlier split with the same videos and captions}: val and test are often
    one set under two names. Equal figures alone are no reason.
    """
    same: dict[str, str] = {}
    splits = annotations.splits
    names = list(splits)
    for n, name in enumerate(names):
        twin = next(
            (o for o in names[:n] if splits[o] == splits[name] and splits[name].caption_ids), None
        )
        if twin:
            same[name] = twin
    return same


def _repeated(texts: list[str]) -> int:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return sum(count for count in counts.values() if count > 1)


def _seconds(annotations: Annotations, video_id: str, known: Mapping[str, float]) -> float | None:
    if video_id in known:
        return known[video_id]
    video = annotations.videos[video_id]
    return video.end - (video.start or 0.0) if video.end is not None else None
