"""A faiss index beside an index of millions of rows: it chooses candidates, exact products rank.

Its recall against exact search is measured when it is built, and printed. faiss-cpu is an extra
(requirements-faiss.txt); without it every search is exact.
"""

import importlib.util
import math
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline import log
from pipeline.core.files import atomic_path
from pipeline.errors import ConfigError, DataError
from pipeline.search.products import exact_products, products
from pipeline.stores.index.reader import STORE, SUMMARY, IndexStore

FILE = "approximate.faiss"
_AUTO_ROWS = 2_000_000
_BLOCK = 65_536
_TRAINED = 100_000
_QUERIES, _TOP, _NEAR = 100, 10, 256
CANDIDATES = 512  # that are scored exactly
_SHARE = 16  # of the lists of an IVF, one in so many is looked through, at least 8

How = Literal["auto", "none", "ivf", "sq8"]


def build(folder: Path, store: IndexStore, how: How) -> dict | None:
    """Build what `how` says below `folder`; what was built, with its recall at 10, or None.

    ConfigError if faiss is asked for and not installed.
    """
    file = folder / STORE / FILE
    if how == "none" or (how == "auto" and store.rows <= _AUTO_ROWS):
        file.unlink(missing_ok=True)
        return None
    if SUMMARY not in store.names or not store.rows:
        return None
    if importlib.util.find_spec("faiss") is None:
        if how == "auto":
            log.info(
                f"{store.rows:,} rows are searched one by one; faiss-cpu (requirements-faiss.txt)"
                " would choose among them"
            )
            return None
        expect_faiss(how)
    kind = "ivf" if how == "auto" else how
    found = {"kind": kind} | _built(file, store, kind)
    log.info(
        f"faiss {kind}: recall at 10 {found['recall']:.3f} against exact search, before the"
        f" {CANDIDATES} candidates are scored exactly {found['recall_alone']:.3f}"
    )
    return found


def expect_faiss(how: How) -> None:
    """Raise ConfigError if faiss is asked for and not installed."""
    if how in ("ivf", "sq8") and importlib.util.find_spec("faiss") is None:
        raise ConfigError(
            "faiss is not installed",
            where=f"index.approximate: {how}",
            fix="python -m pip install -r requirements-faiss.txt, or leave --approximate out.",
        )


def open_approximate(folder: Path) -> "Approximate | None":
    """Return the faiss index of an index, if it has one and faiss is installed."""
    file = folder / STORE / FILE
    if not file.is_file() or importlib.util.find_spec("faiss") is None:
        return None
    return Approximate(file)


class Approximate:
    """Rows whose products with a query are probably the largest."""

    def __init__(self, file: Path):
        import faiss

        try:
            self._index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise DataError(
                f"faiss cannot read it: {str(error).splitlines()[0][:160]}",
                where=file,
                fix="Remove this file, or index again.",
            ) from error
        if hasattr(self._index, "nprobe"):
            self._index.nprobe = max(8, self._index.nlist // _SHARE)

    def nearest(self, vector: np.ndarray, n: int = CANDIDATES) -> np.ndarray:
        """At most n rows, int64, nearest first."""
        _, rows = self._index.search(vector[None].astype(np.float32), n)
        return rows[0][rows[0] >= 0]


def _built(file: Path, store: IndexStore, kind: str) -> dict:
    import faiss

    summaries = store.array(SUMMARY)
    dim = summaries.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "sq8":
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, metric)
    else:
        lists = max(1, min(65_536, int(4 * math.sqrt(store.rows)), store.rows // 40))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim), dim, lists, faiss.ScalarQuantizer.QT_8bit, metric
        )
    some = _evenly(store.rows, _TRAINED)
    index.train(np.asarray(summaries[some], np.float32))
    for start in range(0, store.rows, _BLOCK):
        index.add(np.asarray(summaries[start : start + _BLOCK], np.float32))
    with atomic_path(file) as temporary:
        faiss.write_index(index, str(temporary))
    return _recall(Approximate(file), store)


def _recall(made: Approximate, store: IndexStore) -> dict:
    """Of the ten rows nearest to rows of the index, how many are found: with and without scoring
    the candidates exactly.
    """
    summaries = store.array(SUMMARY)
    alone = after = total = 0
    for row in _evenly(store.rows, _QUERIES):
        vector = np.asarray(summaries[row], np.float32)
        near = np.argsort(-products(summaries, vector), kind="stable")[:_NEAR]
        rows = made.nearest(vector)
        true, found = _best(summaries, vector, near), _best(summaries, vector, rows)
        alone += len(true & set(rows[:_TOP].tolist()))
        after += len(true & found)
        total += len(true)
    return {"recall": round(after / total, 4), "recall_alone": round(alone / total, 4)}


def _best(summaries: np.ndarray, vector: np.ndarray, rows: np.ndarray) -> set[int]:
    order = np.argsort(-exact_products(summaries, vector, rows), kind="stable")
    return set(rows[order[:_TOP]].tolist())


def _evenly(n: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(np.int64))
