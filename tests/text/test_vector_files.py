import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.text import vector_files

WORDS = ["dog", "cat", "in", "new york"]
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def big_file(folder: Path) -> Path:
    folder.mkdir()
    (folder / "feature.bin").write_bytes(ROWS[:3].tobytes())
    (folder / "id.txt").write_text("dog cat in")
    (folder / "shape.txt").write_text("3 3")
    return folder


def text_file(path: Path, header: bool = True) -> Path:
    lines = ["4 3"] * header + [
        f"{w} {' '.join(map(str, row))} " for w, row in zip(WORDS, ROWS.tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def binary_file(path: Path) -> Path:
    rows = (
        word.replace(" ", "_").encode() + b" " + row.tobytes() + b"\n"
        for word, row in zip(WORDS, ROWS, strict=True)
    )
    path.write_bytes(b"4 3\n" + b"".join(rows))
    return path


def packed(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


@pytest.fixture(params=["big_file", "text", "glove", "binary", "packed text", "packed binary"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    makers = {
        "big_file": lambda: big_file(tmp_path / "vectors"),
        "text": lambda: text_file(tmp_path / "a.txt"),
        "glove": lambda: text_file(tmp_path / "a.vec", header=False),
        "binary": lambda: binary_file(tmp_path / "a.bin"),
        "packed text": lambda: packed(text_file(tmp_path / "a.txt")),
        "packed binary": lambda: packed(binary_file(tmp_path / "a.bin")),
    }
    return makers[request.param]()


def test_only_wanted_words_are_read_from_every_form(source: Path) -> None:
    vectors = vector_files.read(source, ["<pad>", "cat", "in", "zebra"])

    assert vectors.dim == 3
    assert sorted(vectors.rows) == ["cat", "in"]
    assert np.array_equal(vectors.rows["cat"], ROWS[1])
    assert vectors.rows["in"].dtype == np.float32


def test_the_first_vector_of_a_repeated_word_counts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("2 2\ndog 1 2\ndog 3 4\n")

    assert vector_files.read(tmp_path / "a.txt", ["dog"]).rows["dog"].tolist() == [1, 2]


def test_what_gensim_writes_is_read(tmp_path: Path) -> None:
    from gensim.models import KeyedVectors

    theirs = KeyedVectors(3)
    theirs.add_vectors(WORDS[:3], ROWS[:3])
    for name, binary in (("a.txt", False), ("a.bin", True)):
        theirs.save_word2vec_format(str(tmp_path / name), binary=binary)

        assert np.array_equal(vector_files.read(tmp_path / name, ["cat"]).rows["cat"], ROWS[1])


@pytest.mark.parametrize(
    "sep_limit", [0, 1 << 20]
)  # numbers in a file of their own, or in the pickle
def test_keyed_vectors_of_gensim_are_read_without_gensim(tmp_path: Path, sep_limit: int) -> None:
    from gensim.models import KeyedVectors

    theirs = KeyedVectors(3)
    theirs.add_vectors(WORDS[:3], ROWS[:3])
    theirs.save(str(tmp_path / "a.kv"), sep_limit=sep_limit)

    vectors = vector_files.read(tmp_path / "a.kv", ["<pad>", "cat"])

    assert (vectors.dim, list(vectors.rows), vectors.rows["cat"].tolist()) == (
        3,
        ["cat"],
        ROWS[1].tolist(),
    )
    assert len(vector_files.files(tmp_path / "a.kv")) == (2 if sep_limit == 0 else 1)


@pytest.mark.parametrize(
    "name, data, what",
    [
        ("a.txt", b"2 3\ndog 1 2\n", "a.txt:2: 2 values for 'dog', expected 3"),
        ("a.txt", b"", "neither"),
        ("a.txt", b"dog\n", "neither"),
        ("a.bin", b"9 3\ndog ", "ends within word 1 of 9"),
        ("a.bin", b"dog 1 2\n", "starts with a line"),
        ("a.bin", b"99999999999 3\n" + b"x" * 70000, "ends within word 1"),
        ("a.txt.gz", b"not packed", "cannot be read"),
        ("a.model", b"", "a pickle of a whole model; save its vectors"),
        ("a.kv", pickle.dumps({"dog": [1.0]}), "its numbers cannot be read"),
        ("a.kv", pickle.dumps(np.sum), "asks for numpy.* which was refused"),
        ("a.kv.gz", b"", "pickle of a whole model"),
    ],
)
def test_files_of_another_form_are_refused(
    tmp_path: Path, name: str, data: bytes, what: str
) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(DataError, match=what):
        vector_files.read(tmp_path / name, ["dog"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.txt: cannot be read"):
        vector_files.read(tmp_path / "gone.txt", ["dog"])
