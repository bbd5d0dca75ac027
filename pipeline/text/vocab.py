"""Vocabularies: made from word counts, stored as JSON, read in every published form, used to turn
captions into ids.

Forms on disk: `vocab.json` of Dual Encoding++ {word: id}; the pickles of hybrid_space and
dual_encoding; the word lists of w2vv. Sources: dongYoun2/dual-encoding-system: vocab.py;
danieljf24/hybrid_space: util/vocab.py, util/text2vec.py; danieljf24/w2vv
(docs/specs/dual-encoding.md, sections 9.3, 10.1, 11.2, 11.3).
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.core.files import atomic_write
from pipeline.errors import DataError
from pipeline.text import assets, pickles
from pipeline.text.words import Letters, clean_words, raw_words

FILE = "vocab.json"
BAG_FILE = "bow_vocab.json"  # hybrid_space counts its bag of words over entries of its own
SPECIALS = (
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
)  # ids 0 to 3 in Dual Encoding++, which uses neither <s> nor </s>
HYBRID_SPECIALS = (
    "<pad>",
    "<start>",
    "<end>",
    "<unk>",
)  # hybrid_space puts <start> and <end> around every caption
_UNKNOWN = ("<unk>", "UNK")
_FIX = (
    "Give the vocab.json that the vocab step wrote, or a published vocabulary (.json, .pkl, .txt)."
)


@dataclass(frozen=True)
class Vocabulary:
    """Words and their ids 0 .. len - 1 (a w2vv list with padding starts at 1). What it does with
    unknown words follows from its special entries.
    """

    ids: dict[str, int]

    @property
    def words(self) -> list[str]:
        """The entries in the order of their ids."""
        return sorted(self.ids, key=self.ids.__getitem__)

    def __len__(self) -> int:
        """Number of ids, the padding id of a w2vv list included: the rows of an embedding."""
        return max(self.ids.values(), default=-1) + 1

    @cached_property
    def unknown(self) -> int | None:
        """The id of words that are not listed. None: they are left out (the bag-of-words form of
        hybrid_space).
        """
        return next((self.ids[word] for word in _UNKNOWN if word in self.ids), None)

    @cached_property
    def letters(self) -> Letters:
        """The rule that its words were made by: "unicode" if one has a letter beyond ASCII, else
        "ascii", as every published vocabulary.
        """
        return "ascii" if all(map(str.isascii, self.ids)) else "unicode"

    def split(self, text: str, clean: bool = True) -> list[str]:
        """Return the words of a text as this vocabulary counts them; clean=False: split at
        whitespace.
        """
        return clean_words(text, self.letters) if clean else raw_words(text)

    def encode(self, text: str, clean: bool = True, boundaries: bool = True) -> list[int]:
        """Return the ids of a caption's words; with `boundaries` between <start> and <end>, where
        the vocabulary has them.

        clean=False splits at whitespace only, as the published data loader does: capitals and
        attached punctuation make unknown words then (16 % of all words in ActivityNet, none in
        MSR-VTT).
        """
        words = self.split(text, clean)
        get, unknown = self.ids.get, self.unknown
        ids = [get(word, unknown) for word in words]
        if unknown is None:
            ids = [i for i in ids if i is not None]
        if boundaries and "<start>" in self.ids:
            return [self.ids["<start>"], *ids, self.ids["<end>"]]
        return ids

    def unknown_share(self, texts: Iterable[str], clean: bool = True) -> float:
        """Share of all words of the texts that are not listed, 0 to 1: near 1 for a vocabulary of
        another corpus.
        """
        counts = Counter(word for text in texts for word in self.split(text, clean))
        return sum(n for word, n in counts.items() if word not in self.ids) / max(1, counts.total())

    def save(self, path: Path) -> None:
        """Write {word: id} as the published vocab.json is written, byte for byte."""
        atomic_write(path, json.dumps(self.ids, indent=2))


def most_frequent(counts: Counter[str], min_count: int, size: int) -> list[str]:
    """Up to `size` words seen at least `min_count` times, by falling count; ties in the order of
    `counts`.
    """
    frequent = [word for word, n in counts.items() if n >= min_count]
    return sorted(frequent, key=counts.__getitem__, reverse=True)[:size]


def build(counts: Counter[str], min_count: int = 5, size: int = 50_000) -> Vocabulary:
    """Return the vocabulary of Dual Encoding++: four special entries, then up to `size` words, most
    frequent first.
    """
    return Vocabulary(
        {word: i for i, word in enumerate([*SPECIALS, *most_frequent(counts, min_count, size)])}
    )


def build_hybrid(
    counts: Counter[str], style: Literal["rnn", "bow"], min_count: int = 5
) -> Vocabulary:
    """Return a vocabulary of hybrid_space: words in order of appearance; style "rnn" starts with
    four special entries.
    """
    words = [word for word, n in counts.items() if n >= min_count]
    return Vocabulary(
        {word: i for i, word in enumerate([*HYBRID_SPECIALS, *words] if style == "rnn" else words)}
    )


def counter_text(counts: Counter[str], min_count: int = 5) -> str:
    """`word_vocab_counter_<n>.txt` of hybrid_space: "word count" by falling count, no newline at
    the end.
    """
    return "\n".join(
        f"{word} {counts[word]}" for word in most_frequent(counts, min_count, len(counts))
    )


def joined(words: Vocabulary, bag: Vocabulary | None) -> Vocabulary:
    """Return the words, and behind them those that only the bag knows: one id says both what a word
    is and where it counts.
    """
    extra = [word for word in bag.words if word not in words.ids] if bag else []
    return (
        Vocabulary(words.ids | {word: n for n, word in enumerate(extra, start=len(words))})
        if extra
        else words
    )


def bag_columns(words: Vocabulary, bag: Vocabulary) -> np.ndarray:
    """Column in the bag of each id of `joined(words, bag)`, int64, -1: not in it."""
    ids = joined(words, bag)
    columns = np.full(len(ids), -1, dtype=np.int64)
    columns[[ids.ids[word] for word in bag.ids]] = list(bag.ids.values())
    return columns


def load_bag(path: Path, words: Vocabulary) -> Vocabulary | None:
    """Return the vocabulary of the bags from a file, or from where `load` finds that of the words
    in a folder.

    None if there is none, or if it is the words themselves without the special entries: then
    nothing need be kept.
    """
    file = _in_folder(path, BAG_FILE, "bow") if path.is_dir() else path
    bag = load(file) if file else None
    plain = [word for word in words.words if word not in HYBRID_SPECIALS]
    return None if bag is None or bag.words == plain and min(bag.ids.values()) == 0 else bag


def load(path: Path) -> Vocabulary:
    """Return a vocabulary from a vocab step's folder, a .json, a published .pkl (read without
    running it) or a w2vv .txt.

    A folder may also be a collection of hybrid_space, or `TextData/vocabulary` in it, with one
    pickle in `rnn`.

    Raises DataError if the file is unreadable or its entries are not words with distinct ids
    without gaps.
    """
    if path.is_dir():
        path = _in_folder(path, FILE, "rnn") or path / FILE
    readers = {".pkl": _read_pickle, ".pickle": _read_pickle, ".txt": _read_word_list}
    ids = readers.get(path.suffix, _read_json)(path)
    _check(ids, path)
    return Vocabulary(ids)


def _in_folder(folder: Path, name: str, style: str) -> Path | None:
    """Return the file of a vocab step, or the pickle that hybrid_space keeps in a folder named
    after the style: in `TextData/vocabulary` of a collection.
    """
    of_collection = folder / "TextData" / "vocabulary"
    if of_collection.is_dir() and not (folder / name).is_file():
        folder = of_collection
    found = (
        [folder / name]
        if (folder / name).is_file()
        else sorted((folder / style).glob("word_vocab_*.pkl"))
    )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{len(found)} vocabularies: {names}",
            where=folder / style,
            fix="Name one of these files.",
        )
    return found[0] if found else None


def _read_json(path: Path) -> object:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read as a vocabulary: {error}", where=path, fix=_FIX) from error
    return {word: i for i, word in enumerate(value)} if isinstance(value, list) else value


def _read_pickle(path: Path) -> object:
    value = pickles.read(path, shells=("Vocabulary",))
    return getattr(value, "word2idx", None)


def _read_word_list(path: Path) -> object:
    """w2vv: one word per line by falling count.

    In a folder called `rnn` 0 is padding and UNK comes last; elsewhere (bow, bow_filterstop) ids
    start at 0 and unknown words are left out.
    """
    words = [line.split()[0] for line in assets.read_lines(path) if line.strip()]
    if path.resolve().parent.name == "rnn":
        return {word: i for i, word in enumerate([*words, "UNK"], start=1)}
    return {word: i for i, word in enumerate(words)}


def _check(ids: object, path: Path) -> None:
    if not isinstance(ids, dict) or not ids:
        raise DataError("holds no vocabulary (words with their ids)", where=path, fix=_FIX)
    wrong = [word for word, i in ids.items() if not isinstance(word, str) or type(i) is not int]
    if wrong:
        raise DataError(
            f"{len(wrong):,} entries are not a word with its id: {wrong[:3]}", where=path, fix=_FIX
        )
    first = min(ids.values())
    if first not in (0, 1) or sorted(ids.values()) != list(range(first, first + len(ids))):
        raise DataError(
            f"the ids of {len(ids):,} words are not 0 to {len(ids) - 1:,}", where=path, fix=_FIX
        )
