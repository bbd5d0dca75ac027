"""A run finds the mistakes of every step before the first one starts, and says them together."""

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import config
from pipeline.commands.list import command as list_command
from pipeline.commands.run import command as run_command
from pipeline.core.plan import Pipeline
from pipeline.errors import ConfigError, DataError

DATA = "datasets: {own: {type: synthetic, root: own, videos: {train: 2, val: 2, test: 2}}}\n"


def opened(folder: Path, steps: str) -> Pipeline:
    path = folder / "own.yaml"
    path.write_text(f"{DATA}pipelines: {{own: {{dataset: own, steps: {{{steps}}}}}}}\n")
    return Pipeline.open(config.load(path), "own", folder / "work")


def mistakes(folder: Path, steps: str) -> str:
    with pytest.raises(ConfigError) as caught:
        opened(folder, steps)
    return str(caught.value)


def test_mistakes_of_two_steps_are_said_together(tmp_path: Path) -> None:
    said = mistakes(
        tmp_path,
        "compress: {}, frames: {}, train: {recipe: {extends: tiny_clip, train: {epoch: 3}}},"
        " evaluate: {ties: worst}",
    )

    assert "steps.train: recipes.tiny_clip.train.epoch: unknown option" in said
    assert "steps.evaluate.ties" in said


def test_unknown_recipe_does_not_hide_other_options(tmp_path: Path) -> None:
    said = mistakes(tmp_path, "compress: {}, frames: {}, train: {recipe: tiny_clop, devise: cpu}")

    assert "there is no recipe called 'tiny_clop'" in said and "tiny_clip" in said
    assert "steps.train.devise: unknown option" in said


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("compress: {}, frames: {}, tensors: {}", "nothing to cache"),
        ("compress: {}, tensors: {features: {}}", "nothing provides them"),
        ("compress: {}, features: {networks: [tiny-random]}, concat: {}", "two or more"),
        ("compress: {}, features: {networks: [resnet152]}", "resnet152 need weight files"),
        (
            "compress: {}, frames: {}, train: {recipe: tiny_clip}, evaluate: {rerank: [diffusion]}",
            "no denoiser is given",
        ),
        (
            "compress: {}, frames: {}, train: {recipe: tiny_clip},"
            " evaluate: {rerank: [qbnorm], bank: {split: test}}",
            "bank.split: 'test' is the split that is ranked",
        ),
    ],
)
def test_options_that_contradict_each_other_or_the_inputs(
    tmp_path: Path, steps: str, words: str
) -> None:
    assert words in mistakes(tmp_path, steps)


def test_a_step_that_is_wrong_itself_is_not_said_to_be_missing(tmp_path: Path) -> None:
    said = mistakes(tmp_path, "compress: {}, frames: {qualty: 1}, tensors: {frames: {}}")

    assert "frames.qualty" in said and "nothing provides" not in said


def test_missing_files_of_later_steps_stop_the_run_before_the_first(tmp_path: Path) -> None:
    steps = (
        f"synthesize: {{}}, compress: {{}}, vocab: {{}}, word2vec: {{source: {tmp_path}/v.txt}}, frames: {{}},"
        f" train: {{recipe: tiny_clip, init: {tmp_path}/w.pt}}"
    )
    opened(tmp_path, steps)
    call = ["own", "--config", str(tmp_path / "own.yaml"), "--work", str(tmp_path / "work")]

    with pytest.raises(DataError) as caught:
        CliRunner().invoke(run_command, call, catch_exceptions=False)

    assert f"word2vec.source: {tmp_path}/v.txt" in str(caught.value)
    assert f"train.init: {tmp_path}/w.pt" in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_a_list_of_nothing_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="no pipeline is called 'dmeo'") as caught:
        CliRunner().invoke(list_command, ["pipelines", "dmeo"], catch_exceptions=False)

    assert "demo" in caught.value.fix


@pytest.mark.skipif(importlib.util.find_spec("faiss") is not None, reason="faiss is installed")
def test_an_index_that_needs_faiss_says_so_before_anything_is_encoded(tmp_path: Path) -> None:
    said = mistakes(
        tmp_path,
        "compress: {}, frames: {}, train: {recipe: tiny_clip}, index: {approximate: ivf}",
    )

    assert "faiss is not installed" in said and "requirements-faiss.txt" in said


def test_missing_files_are_said_beside_the_mistakes(tmp_path: Path) -> None:
    steps = (
        "compress: {}, frames: {}, train@a: {recipe: tiny_clop},"
        f" train@b: {{recipe: tiny_clip, init: {tmp_path}/gone.pt}}"
    )
    path = tmp_path / "own.yaml"
    path.write_text(f"{DATA}pipelines: {{own: {{dataset: own, steps: {{{steps}}}}}}}\n")

    found = CliRunner().invoke(
        run_command, ["own", "--config", str(path), "--work", str(tmp_path / "work")]
    )

    said = str(found.exception)
    assert isinstance(found.exception, ConfigError)
    assert "there is no recipe called 'tiny_clop'" in said
    assert f"train@b.init: {tmp_path}/gone.pt: there is no such file" in said
    assert not (tmp_path / "work").exists()
