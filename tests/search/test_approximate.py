"""A faiss index chooses candidates; exact products rank them, and its recall is measured."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.search import approximate
from pipeline.search.collection import Indexed
from pipeline.search.ranking import Choice, Query, rank
from pipeline.stores.index.reader import SUMMARY, IndexStore
from pipeline.stores.index.writer import IndexWriter


@pytest.fixture
def store(tmp_path: Path) -> IndexStore:
    rows = np.random.default_rng(0).standard_normal((2_000, 16)).astype(np.float32)
    writer = IndexWriter(tmp_path)
    for n, row in enumerate(rows):
        writer.append(f"v{n}", "", np.array([[0, 1]], np.float32), {SUMMARY: row[None]})
    writer.finish({"root": "/", "checkpoint": {}, "statistics": {}})
    return IndexStore.open(tmp_path)


def test_small_indexes_have_none(store: IndexStore) -> None:
    assert approximate.build(store.folder, store, "auto") is None
    assert Indexed(store).approximate is None


@pytest.mark.parametrize("how", ["sq8", "ivf"])
def test_candidates_of_faiss_are_ranked_exactly(store: IndexStore, how: str) -> None:
    pytest.importorskip("faiss")

    built = approximate.build(store.folder, store, how)

    query = Query(store.array(SUMMARY)[7].astype(np.float32), None)
    found = rank(Indexed(store), query, Choice(top=5))
    exact = rank(Indexed(store), query, Choice(top=5, exact=True))
    assert built["recall"] > 0.5
    assert found.rows[0] == exact.rows[0] and found.scores[0] == exact.scores[0]


def test_faiss_that_is_asked_for_and_missing_says_how_to_get_it(store: IndexStore) -> None:
    try:
        import faiss  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"requirements-faiss\.txt"):
            approximate.build(store.folder, store, "ivf")
