"""Captions as CLIP reads them: ids of byte pairs, exactly the published ones.

The table of merges is not ours to ship: it is read out of the installed package `openai-clip`,
which is never imported. Two things make 100,000 captions a matter of seconds: cleaning leaves plain
ASCII text alone except for case and space, so it may skip the repairs there; and what stands
between two spaces is cut up the same wherever it stands, so every word is cut once.
Source: openai/CLIP: clip/simple_tokenizer.py and clip/clip.py (tokenize);
docs/specs/clip-backbone.md, section 5 and 6.
"""

import gzip
import hashlib
import heapq
import html
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import regex

from pipeline.errors import DataError

TABLE = "bpe_simple_vocab_16e6.txt.gz"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
# its own needs would bring torchvision
_INSTALL = f"{sys.executable} -m pip install --no-deps openai-clip==1.0.1"
_N_MERGES = 48_894
_MOST_WORDS = 1 << 17  # remembered; then all are forgotten: captions do not have so many
_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPACES = regex.compile(r"\s+")
_PIECES = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class ClipBpe:
    """A byte-pair tokenizer: `encode` one text, `batch` many with the special ids around them.

    Ids: the 256 bytes, the 256 bytes that end a word, one for each merge in its order, start, end.
    """

    def __init__(self, merges: Iterable[tuple[str, str]]):
        """merges: pairs in the characters of `byte_characters`, `</w>` behind what ends a word;
        earlier ones first.
        """
        characters = list(byte_characters().values())
        names = characters + [f"{c}</w>" for c in characters]
        self._bytes = {byte: i for i, byte in enumerate(byte_characters())}
        ids = {name: i for i, name in enumerate(names)}
        self._merged: dict[tuple[int, int], int] = {}
        for i, (left, right) in enumerate(merges, len(ids)):
            self._merged[ids[left], ids[right]] = ids[left + right] = i
        self.start, self.end = len(ids), len(ids) + 1
        self._special = {_START: self.start, _END: self.end}
        self._words: dict[str, tuple[int, ...]] = {}

    @classmethod
    def load(cls, path: Path | None = None) -> "ClipBpe":
        """Return the published tokenizer. path: its table, by default that of the installed
        `openai-clip`.

        Raises DataError if there is none (with the command that installs it), or if it is another
        file.
        """
        return cls(_read_merges(path or find_table()))

    @property
    def size(self) -> int:
        """How many ids there are; 49,408 with the published table."""
        return self.end + 1

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end; none for an empty one."""
        ids: list[int] = []
        for word in clean(text).split(" "):
            known = self._words.get(word)
            ids.extend(known if known is not None else self._learn(word))
        return ids

    def batch(self, texts: Sequence[str], words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids int64 (n, words) and what of them is real, bool (n, words): start, at most
        words - 2 ids, end, zeros.

        Too long texts lose their end but keep the end id. 0 is also the id of "!": only the mask
        tells them apart.
        """
        if words < 2:
            raise ValueError(f"{words} ids leave no room for the start and end tokens")
        ids = np.zeros((len(texts), words), np.int64)
        lengths = np.zeros(len(texts), np.int64)
        for row, text in enumerate(texts):
            inner = self.encode(text)[: words - 2]
            lengths[row] = len(inner) + 2
            ids[row, : lengths[row]] = [self.start, *inner, self.end]
        return ids, np.arange(words) < lengths[:, None]

    def _learn(self, word: str) -> tuple[int, ...]:
        """Return the ids of what stands between two spaces. No piece crosses a space, so its
        neighbours do not matter.
        """
        ids = tuple(i for piece in _PIECES.findall(word) for i in self._cut(piece))
        if len(self._words) >= _MOST_WORDS:
            self._words.clear()
        self._words[word] = ids
        return ids

    def _cut(self, piece: str) -> list[int]:
        if piece in self._special:
            return [self._special[piece]]
        ids = [self._bytes[byte] for byte in piece.encode("utf-8")]
        ids[-1] += len(self._bytes)
        return merge(ids, self._merged)


def merge(ids: list[int], merged: dict[tuple[int, int], int]) -> list[int]:
    """Join neighbours until no pair of `merged` is left: the lowest new id first, and from the
    left.

    The new ids grow with the rank of their merge, and a pair always outranks what it is made of; so
    a queue gives the published order (every occurrence of the best pair, then the next best) in n
    log n steps for words of any length.
    """
    following = [*range(1, len(ids)), -1]
    before = [*range(-1, len(ids) - 1)]
    parts: list[int | None] = list(ids)  # None: joined to its left neighbour
    queue = [(merged[pair], i, *pair) for i, pair in enumerate(pairwise(ids)) if pair in merged]
    heapq.heapify(queue)
    while queue:
        new, i, left, right = heapq.heappop(queue)
        j = following[i]
        if j < 0 or parts[i] != left or parts[j] != right:
            continue  # one of the two has been joined meanwhile
        parts[i], parts[j], following[i] = new, None, following[j]
        if following[j] >= 0:
            before[following[j]] = i
        for first, second in ((before[i], i), (i, following[i])):
            if first >= 0 and second >= 0 and (pair := (parts[first], parts[second])) in merged:
                heapq.heappush(queue, (merged[pair], first, *pair))
    return [part for part in parts if part is not None]


def clean(text: str) -> str:
    """Text repaired (ftfy), HTML entities resolved twice, in lower case, with single spaces and
    none at the ends.
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(
            text.lower().split()
        )  # nothing here that could need a repair: the same, ten times faster
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _SPACES.sub(" ", text).strip().lower()


def byte_characters() -> dict[int, str]:
    """Return a printable character for each of the 256 bytes, in the order of their ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


def find_table() -> Path:
    """Return the table of merges in the installed `openai-clip`, found without importing it.
    DataError if there is none.
    """
    for path in _places():
        if path.is_file():
            return path
    raise DataError(
        "the byte-pair table of CLIP is not installed",
        where=f"openai-clip: clip/{TABLE}",
        fix=f"Run: {_INSTALL}",
    )


def _places() -> Iterable[Path]:
    try:
        listed = importlib.metadata.files("openai-clip") or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    yield from (Path(file.locate()) for file in listed if file.name == TABLE)
    package = importlib.util.find_spec(
        "clip"
    )  # of openai-clip, or of another that brings the same table
    yield from (
        Path(folder) / TABLE for folder in (package and package.submodule_search_locations) or ()
    )


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix=f"Run: {_INSTALL}"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise DataError(
            f"this is not CLIP's table: sha256 {found[:12]}..., published {SHA256[:12]}...",
            where=path,
            fix=f"Uninstall what else brings a package `clip`, then run: {_INSTALL}",
        )
    lines = gzip.decompress(data).decode("utf-8").split("\n")
    return [(left, right) for left, right in map(str.split, lines[1 : 1 + _N_MERGES])]
