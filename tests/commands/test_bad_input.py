"""What users give by mistake, or to do harm: each ends with its exit code and says what, where and
what to do.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import cli
from pipeline.text import vocab
from tests.stages.test_train import RECIPE, inputs  # noqa: F401

WORDS = {
    word: n
    for n, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "quantum", "field", "theory"])
}


def arguments(inputs: dict, out: Path) -> dict[str, object]:  # noqa: F811
    """The flags of a training that works."""
    folder = inputs["tags"].path
    short = RECIPE | {"train": RECIPE["train"] | {"epochs": 1}}
    return {
        "--tensors": inputs["tensors"].path,
        "--annotations": folder,
        "--vocab": folder / "vocab.json",
        "--tags": folder,
        "--recipe": json.dumps(short),
        "--out": out,
        "--threads": 1,
    }


def train(values: dict[str, object]) -> int:
    return cli.main(["train", *(str(part) for pair in values.items() for part in pair)])


def tag_file(folder: Path) -> dict:
    folder.mkdir()
    (folder / "tag_vocab.json").write_text('{"red": 0}')
    (folder / "video_tag.txt").write_text(
        "train0\t{'red': __import__('os').system('touch pwned')}\n"
    )
    return {"--tags": folder}


def frame_map(folder: Path) -> dict:
    folder.mkdir()
    (folder / "feature.bin").write_bytes(bytes(7 * 4))
    (folder / "id.txt").write_text("train0_0")
    (folder / "shape.txt").write_text("1 7")
    (folder / "video2frames.txt").write_text("{'train0': [__import__('os').system('touch pwned')]}")
    return {"--tensors": None, "--features": folder}


def vocabulary(folder: Path) -> dict:
    vocab.Vocabulary(WORDS).save(folder)
    return {"--vocab": folder}


def word_vectors(folder: Path) -> dict:
    folder.mkdir()
    np.save(folder / "pretrained_weight.npy", np.zeros((5, 300), np.float32))
    return {"--word-vectors": folder}


def one_vector(folder: Path) -> dict:
    folder.mkdir()
    np.save(folder / "pretrained_weight.npy", np.zeros(300, np.float32))
    return {"--word-vectors": folder}


def other_videos(folder: Path) -> dict:
    (folder / "TextData").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / "TextData" / f"x{split}.caption.txt").write_text("elsewhere#0 a red circle\n")
    return {"--annotations": folder}


@pytest.mark.parametrize(("make", "told", "cure"), [
    (tag_file, "Nothing in it was run", "Run the tags step again"),
    (frame_map, "video2frames.txt", ""),
    (vocabulary, "100% of the words of 24 captions are not among its 7: a, red, circle", "Make the vocabulary from"),
    (word_vectors, "word vectors (5, 300) for a vocabulary of", "Make the word vectors from this vocabulary"),
    (one_vector, "expected float32 (words, dim), found float32 (300,)", "Give the pretrained_weight.npy"),
    (other_videos, "none of the 1 videos of train has features", "are the ids the same?"),
])  # fmt: skip
def test_training_refuses(inputs, tmp_path, monkeypatch, capsys, make, told, cure) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    given = arguments(inputs, tmp_path / "out") | make(tmp_path / "bad")

    code = train({flag: value for flag, value in given.items() if value is not None})

    head, _, fix = capsys.readouterr().err.strip().rpartition("\n    ")
    assert code == 4
    assert told in head
    assert ": " in head
    assert fix
    assert cure in fix
    assert not (tmp_path / "pwned").exists()


def test_training_with_the_same_flags_and_good_files_works(inputs, tmp_path) -> None:  # noqa: F811
    assert train(arguments(inputs, tmp_path / "out")) == 0
    assert (tmp_path / "out" / "checkpoints" / "best.pt").is_file()


def test_evaluation_on_words_that_the_model_does_not_know_is_warned_of(
    inputs,  # noqa: F811
    tmp_path,
    capsys,
) -> None:
    train(arguments(inputs, tmp_path / "out"))
    (tmp_path / "z.txt").write_text("val0#0 quantum field\nval1#0 theory of strings\n")
    capsys.readouterr()

    code = cli.main(
        [
            "evaluate",
            "--in",
            str(tmp_path / "out"),
            "--annotations",
            str(tmp_path / "z.txt"),
            "--split",  # fmt: skip
            "train",
            "--tensors",
            str(inputs["tensors"].path),
            "--out",
            str(tmp_path / "r"),
        ]
    )

    assert code == 0
    assert (
        "vocabulary is of another corpus, so scores mean little: 100% of the words"
        in capsys.readouterr().err
    )
