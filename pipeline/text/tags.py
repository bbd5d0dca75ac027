"""Tags: nouns, verbs and adjectives of the captions, as a vocabulary and as counts per video.

Source: dongYoun2/dual-encoding-system: scripts/video_tag.py, utils/utils_.py;
danieljf24/hybrid_space:
util/get_concept_tags.py (docs/specs/dual-encoding.md, sections 10.2, 11.2). Their files are read
and written in `tag_files`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.datasets.base import Caption
from pipeline.text.assets import stop_words
from pipeline.text.morphy import Morphy
from pipeline.text.perceptron import Perceptron
from pipeline.text.words import tokens

_CLASSES = {
    "J": "a",
    "V": "v",
    "N": "n",
}  # first letter of a Penn tag -> WordNet class; other words are dropped


@dataclass(frozen=True)
class Token:
    """One token of a caption. lemma: None when its class is dropped. kept: it counts as a tag."""

    text: str
    tag: str
    lemma: str | None
    kept: bool


@dataclass
class TagCounts:
    """Counts of tags: in all captions, and by video."""

    total: Counter[str] = field(default_factory=Counter)
    videos: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass
class Reader:
    """Finds the tags of captions: clean, split, tag, keep J V N, lemmatise, drop stop words."""

    tagger: Perceptron
    morphy: Morphy
    stop_words: frozenset[str] = field(default_factory=stop_words)
    _known: dict[tuple[str, str], str | None] = field(
        default_factory=dict, repr=False
    )  # (token, first letter) -> lemma

    def tokens(self, text: str) -> list[Token]:
        """Return every token of a caption with its Penn tag and lemma."""
        words = tokens(text)
        found = []
        for word, tag in zip(words, self.tagger.tag(words), strict=True):
            pos = _CLASSES.get(tag[0])
            lemma = self.morphy.lemma(word, pos) if pos else None
            found.append(
                Token(word, tag, lemma, lemma is not None and lemma not in self.stop_words)
            )
        return found

    def lemmas(self, text: str) -> list[str]:
        """Return the tags of a caption in order, each as often as it occurs: what `tokens` keeps,
        found faster.
        """
        words = tokens(text)
        known, kept = self._known, []
        for word, tag in zip(words, self.tagger.tag(words), strict=True):
            key = (word, tag[0])
            if key not in known:
                known[key] = self._lemma(*key)
            if known[key]:
                kept.append(known[key])
        return kept

    def count(self, captions: Iterable[Caption]) -> "TagCounts":
        """Return how often each tag occurs, in all captions together and per video, all in order of
        first appearance.
        """
        counts = TagCounts()
        for caption in captions:
            lemmas = self.lemmas(caption.text)
            counts.total.update(lemmas)
            counts.videos.setdefault(caption.video_id, Counter()).update(lemmas)
        return counts

    def _lemma(self, word: str, letter: str) -> str | None:
        if letter not in _CLASSES:
            return None
        lemma = self.morphy.lemma(word, _CLASSES[letter])
        return None if lemma in self.stop_words else lemma
