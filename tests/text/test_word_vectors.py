import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.text.word_vectors import Training, Vectors, train, weight_matrix

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["<pad>", "<unk>", "dog", "cat"]


def test_rows_are_vectors_and_missing_ones_are_drawn_in_order_from_the_legacy_generator() -> None:
    vectors = Vectors({"dog": np.array([1, 2], dtype=np.float32)}, 2)

    matrix, missing = weight_matrix(WORDS, vectors, seed=77)

    noise = np.random.RandomState(77)
    expected = np.array(
        [[0, 0], noise.uniform(-1, 1, 2), [1, 2], noise.uniform(-1, 1, 2)], dtype=np.float32
    )
    assert np.array_equal(matrix, expected)
    assert matrix.dtype == np.float32
    assert missing.tolist() == [True, True, False, True]


def test_without_vectors_every_row_but_padding_is_noise() -> None:
    matrix, missing = weight_matrix(WORDS, Vectors({}, 5), seed=0)

    assert missing.all()
    assert not matrix[0].any()
    assert np.abs(matrix[1:]).max() < 1


def test_vectors_that_are_not_finite_are_named() -> None:
    with pytest.raises(DataError, match="1 of 4 words have values that are not finite: dog"):
        weight_matrix(WORDS, Vectors({"dog": np.array([np.nan, 0])}, 2), 0)


def test_training_gives_a_vector_to_every_word() -> None:
    vectors = train(["a dog runs", "a cat runs", "..."] * 10, Training(dim=8, epochs=1), seed=3)

    assert sorted(vectors.rows) == ["a", "cat", "dog", "runs"]
    assert vectors.rows["dog"].shape == (8,)


def test_training_without_words_says_so() -> None:
    with pytest.raises(DataError, match="no caption has a word"):
        train(["...", ""], Training(dim=8), seed=0)


def test_training_gives_the_same_bytes_in_every_process() -> None:
    code = (
        "from pipeline.text.word_vectors import Training, train\nfound = train(['a dog runs', 'the"
        " cat sat on a dog'] * 50, Training(dim=16, epochs=3), 5).rows\nimport hashlib;"
        " print(hashlib.sha256(b''.join(found[w].tobytes() for w in sorted(found))).hexdigest())"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(result.stdout)

    assert len(digests) == 1
