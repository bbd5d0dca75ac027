"""The folder of an evaluated checkpoint: what is written is read back; damage is reported."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluation import results
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.results import Gallery
from pipeline.evaluation.retrieve import Result

T2V = np.array([[3, 3, 0], [1, 5, 2]], np.float32)
NAMES = Gallery(
    "digest", "test", ["a", "b", "имя\udcff"], ["a#0", "b#0"], ["one", "two"], np.arange(2)
)
VECTORS = {
    "text": {"latent": np.ones((2, 4), np.float32)},
    "video": {"latent": np.zeros((3, 4), np.float32)},
}


def ranked() -> Result:
    found = evaluate(T2V, T2V.T, np.array([0, 1]))
    return Result("none", found.metrics, found, T2V, T2V.T)


def save(folder: Path) -> list[Path]:
    return results.save(
        folder,
        {"results": {}},
        results.rank_arrays(ranked().rerank, ranked().evaluation),
        NAMES,
        VECTORS,
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    save(tmp_path)

    gallery, encodings = results.read_gallery(tmp_path), results.read_vectors(tmp_path)

    assert gallery.video_ids == NAMES.video_ids
    assert encodings["video"]["latent"].shape == (3, 4)
    assert results.read_ranks(tmp_path, "none")["t2v"].tolist() == [2, 1]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a"), save(tmp_path / "b")

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_score_matrices_are_saved_as_float32(tmp_path: Path) -> None:
    t2v, v2t = results.save_similarity(tmp_path, ranked().rerank, ranked().t2v, ranked().v2t)

    assert np.load(t2v).dtype == np.float32
    assert (np.load(v2t) == T2V.T).all()


@pytest.mark.parametrize("name", ["metrics.json", "gallery.json", "ranks.npz", "encodings.npz"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    (tmp_path / name).write_bytes(b"{")

    with pytest.raises(DataError, match=name):
        results.read_metrics(tmp_path)
        results.read_ranks(tmp_path, "none")
        results.read_vectors(tmp_path)


def test_encodings_of_another_gallery_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    fewer = VECTORS | {"video": {"latent": np.zeros((2, 4), np.float32)}}
    results.save(tmp_path, {}, {}, NAMES, fewer)

    with pytest.raises(DataError, match="3 ids"):
        results.read_vectors(tmp_path)
