"""Which caption belongs to which video: read from the file, given, or asked for."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.scored_file import read_matrix, read_scored

WIDE = np.arange(12.0).reshape(4, 3)


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "s.npz", **arrays)
    return folder / "s.npz"


def test_square_matrix_has_its_truth_on_the_diagonal(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.eye(3))

    assert read_scored(tmp_path / "s.npy").target.tolist() == [0, 1, 2]


def test_transposed_matrix_is_turned(tmp_path: Path) -> None:
    path = saved(tmp_path, sim=WIDE.T, owner=np.array([0, 1, 2, 0]))

    scored = read_scored(path, transposed=True)

    assert (scored.t2v == WIDE).all()
    assert (scored.v2t == WIDE.T).all()


@pytest.mark.parametrize(
    "arrays",
    [{"owner": np.array([0, 0, 1, 2])}, {"captions_per_video": np.array([2, 1, 1])}],
    ids=["owner", "counts"],
)
def test_npz_says_whose_captions_they_are(tmp_path: Path, arrays: dict) -> None:
    assert read_scored(saved(tmp_path, sim=WIDE, **arrays)).target.tolist() == [0, 0, 1, 2]


def test_masked_slots_are_no_queries(tmp_path: Path) -> None:
    path = saved(
        tmp_path, sim=np.arange(12.0).reshape(6, 2), query_mask=np.array([1, 1, 0, 1, 1, 1])
    )

    scored = read_scored(path)

    assert scored.target.tolist() == [0, 0, 1, 1, 1]
    assert scored.v2t.shape == (2, 5)


def test_separate_v2t_matrix_is_used(tmp_path: Path) -> None:
    path = saved(tmp_path, t2v=np.eye(2), v2t=np.ones((2, 2)))

    assert (read_scored(path).v2t == 1).all()


def test_not_square_without_owners_says_what_to_give(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.ones((6, 3)))

    with pytest.raises(DataError, match="6 texts x 3 videos") as error:
        read_scored(tmp_path / "s.npy")

    assert "--captions-per-video 2" in str(error.value)


def test_more_videos_than_texts_suggests_transposed(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.ones((3, 6)))

    with pytest.raises(DataError, match="--transposed"):
        read_scored(tmp_path / "s.npy")


@pytest.mark.parametrize("owner", [[0, 1, 2, 3], [0, 1], [-1, 0, 1, 2], [0.5, 1, 2, 0]])
def test_owners_that_do_not_fit_are_refused(tmp_path: Path, owner: list) -> None:
    with pytest.raises(DataError, match="which caption belongs to which video"):
        read_scored(saved(tmp_path, sim=WIDE, owner=np.array(owner)))


def test_counts_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="already says"):
        read_scored(saved(tmp_path, sim=WIDE, owner=np.array([0, 0, 1, 2])), captions_per_video=2)


@pytest.mark.parametrize(
    "array",
    [np.ones(3), np.ones((2, 2, 2)), np.array([["a"]]), np.ones((2, 2), complex), np.empty((0, 3))],
)
def test_what_is_no_real_matrix_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(DataError, match="not a matrix of real numbers"):
        read_matrix(saved(tmp_path, sim=array))


def test_archive_with_several_unnamed_matrices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 matrices among a, b"):
        read_matrix(saved(tmp_path, a=np.eye(2), b=np.eye(2)))
