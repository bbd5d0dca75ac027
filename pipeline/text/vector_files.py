"""Word vectors in published files: only the words that are wanted are kept in memory.

Forms: a BigFile folder whose ids are words; word2vec or GloVe text (.txt, .vec: "word v1 ... vD"
per line, an optional first line "words dims"); word2vec binary (.bin: that line, then word, space,
D float32 each), both also packed (.gz); gensim's KeyedVectors (.kv, .wordvectors, with their
.vectors.npy), a pickle of which only words and numbers are read.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.arrays import read_npy
from pipeline.core.adopted import resolve
from pipeline.errors import DataError
from pipeline.stores.big_file.reader import BigFile
from pipeline.text import pickles
from pipeline.text.word_vectors import Vectors

_BUFFER = 1 << 24
_LONGEST_WORD = 1 << 16
_LARGEST_DIM = 1 << 16
_GENSIM = (".kv", ".wordvectors")
_PICKLES = (".model", ".pkl", ".pickle")
_KEYED_VECTORS = (
    "KeyedVectors",
    "Word2VecKeyedVectors",
    "EuclideanKeyedVectors",
    "Vocab",
)  # the last: before gensim 4
Row = tuple[bytes, np.ndarray]


def read(path: Path, wanted: Iterable[str]) -> Vectors:
    """Return the vectors of the `wanted` words that the file has. DataError if it is missing, cut
    short or of another form.
    """
    if path.is_dir():
        return _read_big_file(path, set(wanted))
    packed = path.suffix == ".gz"
    suffix = Path(path.stem).suffix if packed else path.suffix
    if suffix in _GENSIM and not packed:
        return _read_gensim(path, wanted)
    if suffix in (*_PICKLES, *_GENSIM):
        raise _wrong(
            path,
            "a pickle of a whole model; save its vectors in gensim with"
            " model.wv.save('vectors.kv')",
        )
    rows: dict[str, np.ndarray] = {}
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            reader = _binary if suffix == ".bin" else _text
            dim, found = reader(file, {word.encode() for word in wanted}, path)
            for word, row in found:
                rows.setdefault(
                    word.decode(), row
                )  # a repeated word keeps its first vector, as in gensim
    except (OSError, EOFError, zlib.error) as error:
        raise _wrong(path, f"cannot be read: {error}") from error
    return Vectors(rows, dim)


def files(path: Path) -> list[Path]:
    """Return the files that decide what `read` finds, for digests."""
    if not path.is_dir():
        return [path, *(p for p in [_beside(path)] if p.exists())]
    folder = resolve(path, "bigfile")
    return [folder / name for name in ("feature.bin", "id.txt", "shape.txt")]


def _read_big_file(path: Path, wanted: set[str]) -> Vectors:
    store = BigFile.open(path)
    found = sorted(word for word in wanted if word in store)
    return Vectors(dict(zip(found, store.read(found), strict=True)), store.dim)


def _beside(path: Path) -> Path:
    """Return where gensim keeps the numbers of a large .kv."""
    return path.with_name(f"{path.name}.vectors.npy")


def _read_gensim(path: Path, wanted: Iterable[str]) -> Vectors:
    """KeyedVectors of gensim 4 (index_to_key) or before (index2word)."""
    held = getattr(pickles.read(path, shells=_KEYED_VECTORS, arrays=True), "__dict__", {})
    words, vectors = (
        held.get("index_to_key", held.get("index2word")),
        held.get("vectors", held.get("syn0")),
    )
    try:
        vectors = read_npy(_beside(path)) if vectors is None else vectors.values
    except (DataError, AttributeError) as error:
        raise _wrong(path, f"its numbers cannot be read: {error}") from error
    fits = isinstance(words, list) and vectors.ndim == 2 and len(words) == len(vectors)
    if not fits or vectors.dtype.kind != "f" or vectors.shape[1] > _LARGEST_DIM:
        raise _wrong(path, "holds no words with as many vectors")
    wanted = set(wanted)
    rows = {
        word: np.array(row, np.float32)
        for word, row in zip(words, vectors, strict=True)
        if word in wanted
    }
    return Vectors(rows, vectors.shape[1])


def _text(file: BinaryIO, wanted: set[bytes], path: Path) -> tuple[int, Iterator[Row]]:
    first = file.readline(_BUFFER)
    numbers = _header(first)
    if numbers:
        return numbers[1], _text_rows(file, numbers[1], wanted, path, 2)
    dim = len(first.split()) - 1
    if not 0 < dim <= _LARGEST_DIM:
        raise _wrong(path, 'the first line is neither "words dims" nor a word with its values')
    file.seek(0)
    return dim, _text_rows(file, dim, wanted, path, 1)


def _text_rows(
    file: BinaryIO, dim: int, wanted: set[bytes], path: Path, start: int
) -> Iterator[Row]:
    for n, line in enumerate(file, start):
        word, _, values = line.rstrip().partition(b" ")
        if word not in wanted:
            continue
        try:
            row = np.array([float(value) for value in values.split()], dtype=np.float32)
        except ValueError:
            continue  # an entry of several words that begins with this one (GloVe has some)
        if row.size != dim:
            raise _wrong(
                f"{path}:{n}", f"{row.size:,} values for {word.decode()!r}, expected {dim:,}"
            )
        yield word, row


def _binary(file: BinaryIO, wanted: set[bytes], path: Path) -> tuple[int, Iterator[Row]]:
    numbers = _header(file.readline(_LONGEST_WORD))
    if not numbers:
        raise _wrong(path, 'a word2vec binary file starts with a line "words dims"')
    return numbers[1], _binary_rows(file, *numbers, wanted, path)


def _binary_rows(
    file: BinaryIO, n_words: int, dim: int, wanted: set[bytes], path: Path
) -> Iterator[Row]:
    buffer, position = b"", 0
    for n in range(n_words):
        space = buffer.find(b" ", position)
        if space < 0 or len(buffer) < space + 1 + 4 * dim:
            buffer, position = buffer[position:] + file.read(_BUFFER), 0
            space = buffer.find(b" ", 0, _LONGEST_WORD)
        end = space + 1 + 4 * dim
        if space < 0 or len(buffer) < end:
            raise _wrong(path, f"ends within word {n + 1:,} of {n_words:,}")
        word = buffer[position:space].lstrip(b"\n")
        if word in wanted:
            yield word, np.frombuffer(buffer, "<f4", dim, space + 1).astype(np.float32)
        position = end


def _header(line: bytes) -> tuple[int, int] | None:
    """Return (words, dims) of a first line that holds just these."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() and len(field) < 12 for field in fields):
        return None
    n_words, dim = map(int, fields)
    return (n_words, dim) if 0 < dim <= _LARGEST_DIM else None


def _wrong(path: object, what: str) -> DataError:
    fix = (
        "Give a BigFile folder, a word2vec file (.txt, .vec, .bin, also .gz), or gensim's"
        " KeyedVectors (.kv)."
    )
    return DataError(what, where=path, fix=fix)
