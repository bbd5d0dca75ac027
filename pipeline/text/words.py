"""Words of a caption: cleaning, splitting, counting, and the tokens that the part-of-speech taggers
expect.

Two rules say what a word is. "ascii": runs of A-Z and digits, as published; every other letter is
lost. "unicode": runs of letters, marks and digits of any language. Both give the same words of
ASCII text. Source of the first: dongYoun2/dual-encoding-system vocab.py and utils
(docs/specs/dual-encoding.md, section 10).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from pipeline import log

Letters = Literal["ascii", "unicode"]

# what NLTK's word tokenizer splits on cleaned text; all its other rules need punctuation, and
# cleaned text has none
_CONTRACTIONS = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}
# one byte in, one byte out: letters and digits (capitals made small) stay, every other byte becomes
# a space. A character beyond ASCII is several such bytes in UTF-8, which makes no difference once
# the text is split
_CLEAN = bytes(
    ord(chr(b).lower()) if b < 128 and chr(b).isalnum() else ord(" ") for b in range(256)
)
_CHUNK = 4096  # captions counted at once: their words fit the processor's cache
# scripts written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han; a character is a word there
_UNSPACED = re.compile(
    "[\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_JOINERS = frozenset("\u200c\u200d")  # within words of Persian and Indian scripts


def clean_words(text: str, letters: Letters = "ascii") -> list[str]:
    """Return the words of a text in lower case, by one of the two rules."""
    return _RULES[letters](text)


def _ascii_words(text: str) -> list[str]:
    return text.encode("utf-8", "surrogatepass").translate(_CLEAN).decode("ascii").split()


def _unicode_words(text: str) -> list[str]:
    """Runs of letters with their marks and of digits, in one form of Unicode (NFKC). Of scripts
    that are written without spaces every letter, with its marks, is a word.
    """
    if text.isascii():
        return _ascii_words(text)
    kept: list[str] = []
    for character in unicodedata.normalize("NFKC", text.lower()):
        kind = unicodedata.category(character)[0]
        if _UNSPACED.match(character) and kind in "LN":
            kept.append(" " + character)
        elif kept and kept[-1] != " " and (kind == "M" or character in _JOINERS):
            kept.append(character)
        elif kind in "LN":
            is_after = bool(kept) and any(map(_UNSPACED.match, kept[-1]))
            kept.append(" " + character if is_after else character)
        else:
            kept.append(" ")
    return "".join(kept).split()


_RULES: dict[Letters, Callable[[str], list[str]]] = {
    "ascii": _ascii_words,
    "unicode": _unicode_words,
}


def raw_words(text: str) -> list[str]:
    """Return the words of a text as the published data loader sees them: split at whitespace,
    nothing cleaned.
    """
    return text.split()


def tokens(text: str) -> list[str]:
    """Return the tokens of a cleaned text that are tagged: its words, with six contractions split
    (cannot -> can, not).
    """
    words = clean_words(text)
    if _CONTRACTIONS.keys().isdisjoint(words):
        return words
    return [token for word in words for token in _CONTRACTIONS.get(word, (word,))]


def count_words(texts: Iterable[str], letters: Letters = "ascii") -> Counter[str]:
    """Return how often each cleaned word occurs in all texts together, in order of first
    appearance.
    """
    if letters == "unicode":
        return Counter(word for text in texts for word in _unicode_words(text))
    counts: Counter[bytes] = Counter()
    texts = iter(texts)
    while chunk := list(islice(texts, _CHUNK)):
        counts.update("\n".join(chunk).encode("utf-8", "surrogatepass").translate(_CLEAN).split())
    return Counter({word.decode("ascii"): n for word, n in counts.items()})


@dataclass
class Losses:
    """What a rule drops of texts. wordless: texts without a word. dropped: characters that are
    neither words, spaces nor punctuation, by how often; texts: of how many.
    """

    texts: int = 0
    wordless: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, texts: Iterable[str], letters: Letters) -> "Losses":
        losses = cls()
        for text in texts:
            losses.texts += 1
            words = clean_words(text, letters)
            if not words:
                losses.wordless.append(text)
            if not text.isascii():
                losses.dropped.update(_dropped(text, letters))
        return losses

    def __str__(self) -> str:
        """In words; "" if nothing is lost."""
        said = []
        if self.dropped:
            examples = "".join(character for character, _ in self.dropped.most_common(8))
            said.append(f"{self.dropped.total():,} characters are dropped ({log.plain(examples)})")
        if self.wordless:
            examples = ", ".join(f"'{log.plain(text[:30])}'" for text in self.wordless[:3])
            said.append(f"{len(self.wordless):,} of {self.texts:,} have no word left ({examples})")
        return "; ".join(said)


def _dropped(text: str, letters: Letters) -> Iterable[str]:
    for character in text:
        if character.isascii():
            continue
        kind = unicodedata.category(character)
        is_word = kind[0] in "LN" or (kind[0] == "M" and kind != "Me")
        if is_word if letters == "ascii" else kind == "So":
            yield character
