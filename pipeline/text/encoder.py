"""The one door from captions or typed words to what a model reads.

Training, evaluation and search all go through `TextEncoder`, so a typed query becomes the very
tokens that the same caption had in training.
"""

import difflib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline import log
from pipeline.errors import ConfigError
from pipeline.text.vocab import Vocabulary
from pipeline.text.words import Losses

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.text.clip_bpe import ClipBpe
    from pipeline.text.sentences import Sentences

# share of words; 16 % is the most that a published corpus has, with captions that are not cleaned
_MOST_UNKNOWN = 0.5


@dataclass(frozen=True)
class TextEncoder:
    """Turns texts into token ids as one model reads them: CLIP's byte pairs, or listed words.

    kind: "clip_bpe" or "words", as models.base.Inputs.text. tokens: the longest text that the model
    reads, special tokens included (byte pairs only); 0: any length. vocabulary, clean: of words;
    clean=False splits captions at whitespace only.

    Raises ConfigError if a model of words has no vocabulary.
    """

    kind: Literal["clip_bpe", "words"]
    tokens: int = 0
    vocabulary: Vocabulary | None = None
    clean: bool = True

    def __post_init__(self) -> None:
        if self.kind == "words" and self.vocabulary is None:
            raise ConfigError(
                "the model reads words", where="train", fix="Add a vocab step, or give --vocab."
            )

    def encode(self, texts: list[str]) -> "dict[str, Tensor]":
        """Return one batch of all texts: text (B, L) int64 padded with 0, text_mask (B, L) bool."""
        return self.sentences(texts).batch(np.arange(len(texts)))

    def sentences(self, texts: list[str]) -> "Sentences":
        """Return all texts at once, for a corpus whose batches are cut later."""
        from pipeline.text.sentences import Sentences

        return Sentences(self.ids(texts), self.tokens)

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, at least one.

        Byte pairs: start, at most tokens - 2 ids, end (docs/specs/clip-backbone.md, section 6).
        Words: without <start> and <end>, which models that read them add themselves; a text without
        a listed word is one unknown word, or id 0 where the vocabulary has none.
        """
        if self.kind == "clip_bpe":
            return self._byte_pairs(texts)
        vocabulary = self.vocabulary
        nothing = [vocabulary.unknown or 0]
        return [vocabulary.encode(text, self.clean, boundaries=False) or nothing for text in texts]

    def unknown_words(self, query: str) -> list[str]:
        """Words of a query that the model does not know; [] for byte pairs, which spell any word.

        Raises ConfigError, with words that are near, if the model knows none of them.
        """
        if self.kind != "words":
            return []
        words = self._split(query)
        if lost := self.lost([query]):
            log.warning(f"query: {lost}")
        unknown = [word for word in words if word not in self.vocabulary.ids]
        if len(unknown) == len(words):
            raise self._nothing_known(query, words)
        return unknown

    def lost(self, texts: list[str]) -> str:
        """Return what of the texts this model cannot read at all, in words; "" if nothing:
        characters that its rule drops, and texts without a word.
        """
        if self.kind != "words" or not self.clean:
            return ""
        return str(Losses.of(texts, self.vocabulary.letters))

    def mostly_unknown(self, texts: list[str]) -> str:
        """Says that most words of the texts are not listed, with examples; "" if most are."""
        if self.kind != "words":
            return ""
        share = self.vocabulary.unknown_share(texts, self.clean)
        if share <= _MOST_UNKNOWN:
            return ""
        words = [word for text in texts[:50] for word in self._split(text)]
        unknown = dict.fromkeys(word for word in words if word not in self.vocabulary.ids)
        return (
            f"{share:.0%} of the words of {len(texts):,} captions are not among its"
            f" {len(self.vocabulary):,}: {', '.join(list(unknown)[:3])}, ..."
        )

    @cached_property
    def _bpe(self) -> "ClipBpe":
        from pipeline.text.clip_bpe import ClipBpe

        return ClipBpe.load()

    def _byte_pairs(self, texts: list[str]) -> list[list[int]]:
        bpe = self._bpe
        ids = [bpe.encode(text) for text in texts]
        self._warn_of_long(ids)
        return [[bpe.start, *sentence[: self.tokens - 2], bpe.end] for sentence in ids]

    def _warn_of_long(self, ids: list[list[int]]) -> None:
        """Warn of texts whose ends are not read; start and end count among `tokens`."""
        long = [2 + len(sentence) for sentence in ids if 2 + len(sentence) > self.tokens]
        if long:
            log.warning(
                f"{len(long):,} of {len(ids):,} texts have more tokens than the {self.tokens} that"
                f" the model reads (at most {max(long):,}); their ends are left out. The recipe's"
                " options.words says how many are read"
            )

    def _split(self, text: str) -> list[str]:
        return self.vocabulary.split(text, self.clean)

    def _nothing_known(self, query: str, words: list[str]) -> ConfigError:
        ids = self.vocabulary.ids
        close = [difflib.get_close_matches(word, ids, n=3, cutoff=0.6) for word in words]
        near = list(dict.fromkeys(word for matches in close for word in matches))
        some = [word for word in self.vocabulary.words if word.isalpha()][:12]
        return ConfigError(
            f"the model knows none of its words (its vocabulary has {len(self.vocabulary):,})",
            where=f"query {query!r}",
            fix=f"Did you mean: {', '.join(near)}?"
            if near
            else f"It knows words like: {', '.join(some)}.",
        )
