"""Words of a caption: cleaning, splitting, counting, and the tokens that the part-of-speech taggers
expect.

Source of the rules: dongYoun2/dual-encoding-system vocab.py and utils (docs/specs/dual-encoding.md,
section 10).
"""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

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


def clean_words(text: str) -> list[str]:
    """The words of a text as the published vocabularies see them: runs of letters and digits
    (ASCII), lower case.
    """
    return text.encode("utf-8", "surrogatepass").translate(_CLEAN).decode("ascii").split()


def raw_words(text: str) -> list[str]:
    """The words of a text as the published data loader sees them: split at whitespace, nothing
    cleaned.
    """
    return text.split()


def tokens(text: str) -> list[str]:
    """The tokens of a cleaned text that are tagged: its words, with six contractions split (cannot
    -> can, not).
    """
    words = clean_words(text)
    if _CONTRACTIONS.keys().isdisjoint(words):
        return words
    return [token for word in words for token in _CONTRACTIONS.get(word, (word,))]


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each cleaned word occurs in all texts together, in order of first appearance."""
    counts: Counter[bytes] = Counter()
    texts = iter(texts)
    while chunk := list(islice(texts, _CHUNK)):
        counts.update("\n".join(chunk).encode("utf-8", "surrogatepass").translate(_CLEAN).split())
    return Counter({word.decode("ascii"): n for word, n in counts.items()})
