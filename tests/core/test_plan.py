"""Pipelines: wiring, states with reasons, selections; on the real command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import config
from pipeline.core.plan import Pipeline
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TINY = """
datasets: {tiny: {type: synthetic, root: tiny, videos: {train: 2, val: 2, test: 2}, captions_per_video: 1, seed: 3}}
pipelines:
  tiny:
    dataset: tiny
    steps:
      synthesize: {}
      compress: {fps: 3, short_side: 32}
"""


class Folder:
    """A folder in which somebody calls the command line; called, it returns what the call gave."""

    def __init__(self, path: Path):
        self.path = path
        (path / "own.yaml").write_text(TINY)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *arguments, "--config", "own.yaml"],
            cwd=self.path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def tiny(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Where both steps are finished; tests copy it."""
    folder = Folder(tmp_path_factory.mktemp("finished"))
    folder.run = folder("run", "tiny")
    return folder


@pytest.fixture
def done(finished: Folder, tmp_path: Path) -> Folder:
    shutil.copytree(finished.path, tmp_path, dirs_exist_ok=True)
    return Folder(tmp_path)


def states(result: subprocess.CompletedProcess) -> dict[str, str]:
    assert result.returncode == 0, result.stderr
    return {name: row["status"] for name, row in json.loads(result.stdout).items()}


def test_run_brings_every_step_up_to_date_and_a_second_run_does_nothing(tiny, finished):
    before = states(tiny("status", "tiny", "--json"))
    again = finished("run", "tiny")

    assert finished.run.returncode == 0
    assert before == {"synthesize": "not started", "compress": "blocked"}
    assert states(finished("status", "tiny", "--json")) == {
        "synthesize": "up to date",
        "compress": "up to date",
    }
    assert again.stderr.count("up to date") == 2
    assert len(list((finished.path / "data/work/tiny/compress").glob("*.mp4"))) == 6


def test_changed_option_makes_a_step_stale_and_says_which(finished):
    result = finished("status", "tiny", "--set", "compress.fps=1")

    assert "stale: compress.fps 3.0 -> 1.0" in result.stdout


def test_dry_run_predicts_exactly_what_a_run_does(done, tmp_path):
    video = next((tmp_path / "data/work/tiny/compress").glob("*.mp4"))
    video.unlink()
    (tmp_path / "data/work/tiny/compress/_state/manifest.json").unlink()

    plan = json.loads(done("run", "tiny", "--dry-run", "--json").stdout)
    result = done("run", "tiny")

    assert plan["synthesize"]["would"] == "nothing"
    assert plan["compress"]["items"] == [video.stem]
    assert "1 new, 5 kept" in result.stderr


def test_until_and_only_and_force(tiny):
    assert "compress" not in tiny("run", "tiny", "--until", "synthesize").stderr
    assert tiny("run", "tiny", "--only", "compress").returncode == 0
    assert "6 new, 0 kept" in tiny("run", "tiny", "--force", "compress").stderr


def test_only_refuses_when_its_inputs_are_not_there(tiny):
    result = tiny("run", "tiny", "--only", "compress")

    assert result.returncode == 4
    assert "compress reads synthesize, which is not up to date" in result.stderr
    assert "run tiny --until compress" in result.stderr


def test_shards_then_merge_equal_the_whole(tiny, finished, tmp_path):
    whole = finished.path / "data/work/tiny"
    shutil.copytree(whole / "synthesize", tmp_path / "parts/tiny/synthesize")
    for index in range(2):
        assert (
            tiny(
                "run", "tiny", "--only", "compress", "--shard", f"{index}/2", "--work", "parts"
            ).returncode
            == 0
        )
    merged = tiny("merge", "tiny", "compress", "--work", "parts")

    assert merged.returncode == 0, merged.stderr
    one = {path.name: path.read_bytes() for path in (whole / "compress").rglob("*.mp4")}
    parts = tmp_path / "parts/tiny/compress"
    assert {path.name: path.read_bytes() for path in parts.rglob("*.mp4")} == one
    assert not (tmp_path / "parts/tiny/compress/_parts").exists()


def test_merge_names_missing_parts(tiny):
    tiny("run", "tiny", "--until", "synthesize")
    tiny("run", "tiny", "--only", "compress", "--shard", "0/3")

    result = tiny("merge", "tiny", "compress")

    assert result.returncode == 4
    assert "2 of 3 parts are missing" in result.stderr


def test_all_mistakes_of_a_pipeline_are_reported_together(tmp_path):
    text = TINY.replace("fps: 3", "fsp: 3").replace(
        "      synthesize: {}\n", "      synthesise: {}\n"
    )
    (tmp_path / "own.yaml").write_text(text.replace("dataset: tiny", "dataset: tinny"))

    with pytest.raises(ConfigError) as caught:
        Pipeline.open(config.load(tmp_path / "own.yaml"), "tiny", tmp_path)

    message = str(caught.value)
    assert "steps.compress.fsp: unknown option. Did you mean fps?" in message
    assert "no stage called 'synthesise'\n    Did you mean synthesize?" in message
    assert "no dataset called 'tinny'" in message


def test_fields_of_a_named_recipe_can_be_set(tmp_path):
    steps = [
        "      frames: {}\n",
        "      tensors: {frames: {size: 64}}\n",
        "      train: {recipe: tiny_clip}\n",
    ]
    (tmp_path / "own.yaml").write_text(TINY + "".join(steps))
    loaded = config.load(tmp_path / "own.yaml")

    pipeline = Pipeline.open(loaded, "tiny", tmp_path, ["train.recipe.train.epochs=3"])

    recipe = pipeline.steps["train"].options.recipe
    assert (recipe["train"]["epochs"], recipe["model"]) == (3, "centerclip")


def test_what_follows_from_a_mistake_is_not_reported_as_another(tmp_path):
    (tmp_path / "own.yaml").write_text(TINY.replace("fps: 3", "fsp: 3") + "      frames: {}\n")

    with pytest.raises(ConfigError) as caught:
        Pipeline.open(config.load(tmp_path / "own.yaml"), "tiny", tmp_path)

    assert "fsp: unknown option" in str(caught.value)
    assert "no earlier step makes it" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "nope"], 2, "no pipeline called 'nope'"),
        (["run", "tiny", "--until", "compres"], 2, "Did you mean compress?"),
        (["run", "tiny", "--set", "compress.fsp=1"], 2, "Did you mean fps?"),
        (["run", "tiny", "--set", "compress.fps=-1"], 2, "greater than 0"),
        (["run", "tiny", "--only", "compress", "--shard", "3/3"], 2, "0 <= I < N"),
        (["compress", "--in", "nowhere", "--out", "x"], 4, "no such file or folder"),
        (["compress", "--out", "x"], 2, "compress needs --videos"),
    ],
)
def test_wrong_usage_ends_with_its_exit_code_and_no_traceback(tiny, arguments, code, words):
    result = tiny(*arguments)

    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
