from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from pipeline.core.runner import run
from pipeline.errors import ConfigError, DataError
from pipeline.stages.word2vec import Stage

VOCAB = '{"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "dog": 4, "cat": 5}'


def vocabulary(folder: Path, text: str = VOCAB) -> Artefact:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(text)
    return Artefact("vocab", folder, content=text)


def stage(tmp_path: Path, annotations: Artefact | None = None, **options: object) -> Stage:
    inputs = {"vocab": vocabulary(tmp_path / "vocab"), "annotations": annotations}
    return Stage(Stage.Options(**options), inputs, tmp_path / "out")


def matrix(tmp_path: Path) -> np.ndarray:
    return np.load(tmp_path / "out" / "pretrained_weight.npy", allow_pickle=False)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    (tmp_path / "v.txt").write_text("1 2\ndog 0.5 0.25\n")
    return tmp_path / "v.txt"


def test_vectors_of_a_file_become_rows(tmp_path: Path, vectors: Path) -> None:
    manifest = run(stage(tmp_path, source=vectors, seed=1), jobs=1)

    assert matrix(tmp_path)[4].tolist() == [0.5, 0.25]
    assert not matrix(tmp_path)[0].any()
    assert manifest["summary"] == {"words": 6, "dim": 2, "without_vector": 5}


def test_the_published_defect_is_available(tmp_path: Path, vectors: Path) -> None:
    run(stage(tmp_path, source=vectors, seed=1, as_published=True), jobs=1)

    noise = np.random.RandomState(1).uniform(-1, 1, (5, 2)).astype(np.float32)
    assert np.array_equal(matrix(tmp_path)[1:], noise)


def test_random_rows_need_no_vectors(tmp_path: Path) -> None:
    run(stage(tmp_path, random=7), jobs=1)

    assert matrix(tmp_path).shape == (6, 7)


def test_vectors_are_learnt_from_the_captions(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("v#0 a dog\nv#1 a cat and a dog\n")
    captions = dataset_artefact(
        {"type": "caption_files", "root": str(tmp_path / "c.txt")}, "annotations"
    )

    manifest = run(stage(tmp_path, captions, train={"dim": 16, "epochs": 1}), jobs=1)

    assert matrix(tmp_path).shape == (6, 16)
    assert manifest["summary"]["without_vector"] == 4


def test_learning_without_captions_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train needs captions.*\n.*--annotations"):
        run(stage(tmp_path, train={"dim": 4}), jobs=1)


@pytest.mark.parametrize("options", [{}, {"random": 3, "train": {}}])
def test_exactly_one_origin_of_the_vectors_is_given(options: dict) -> None:
    with pytest.raises(ValidationError, match="exactly one of source, train, random"):
        Stage.Options(**options)


def test_vectors_of_another_language_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("1 2\nHund 0.5 0.25\n")

    with pytest.raises(DataError, match="none of the 6 words .* e.g. dog, cat"):
        run(stage(tmp_path, source=tmp_path / "v.txt"), jobs=1)


def test_changed_vectors_make_the_matrix_again(tmp_path: Path, vectors: Path) -> None:
    run(stage(tmp_path, source=vectors), jobs=1)
    vectors.write_text("1 2\ndog 8 9\n")

    run(stage(tmp_path, source=vectors), jobs=1)

    assert matrix(tmp_path)[4].tolist() == [8, 9]


def test_missing_vectors_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.bin: cannot be read"):
        run(stage(tmp_path, source=tmp_path / "gone.bin"), jobs=1)


@pytest.mark.parametrize("name, as_published", [("", False), ("_reference_asis", True)])
def test_recorded_matrix_byte_for_byte(
    shared: Path, tmp_path: Path, name: str, as_published: bool
) -> None:
    case = shared / "golden" / "dual-encoding" / "text-stages"
    options = Stage.Options(source=case / "word2vec", seed=77, as_published=as_published)

    run(
        Stage(
            options,
            {"vocab": Artefact("vocab", case / "vocab.json"), "annotations": None},
            tmp_path,
        ),
        jobs=1,
    )

    expected = (case / f"pretrained_weight{name}.npy").read_bytes()
    assert (tmp_path / "pretrained_weight.npy").read_bytes() == expected
