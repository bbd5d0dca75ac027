"""`import tvrkit`: what a notebook does, with a small model and real files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tvrkit
from tests.search.systems import SYSTEMS, checkpoint
from tests.videos import Film, write

TEXTS = ["a dog runs", "red moves left", "a man cooks for a red dog"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [write(folder / f"{n}.mp4", Film(6 + 3 * n, 3, 64, 48)) for n in range(2)]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_encodes_and_scores(system, films, tmp_path) -> None:
    model = tvrkit.load(checkpoint(tmp_path, system)[2], device="cpu")
    rng = np.random.default_rng(0)
    reads_features = model.network.inputs.video == "features"
    videos = [rng.random((t, 5), np.float32) for t in (2, 4)] if reads_features else films

    text, video = model.encode_text(TEXTS), model.encode_videos(videos)
    encoded, direct = model.score(text, video), model.score(TEXTS, videos)

    assert {len(rows) for rows in text.values()} == {3}
    assert {len(rows) for rows in video.values()} == {2}
    assert encoded.shape == direct.shape == (3, 2) and direct.dtype == np.float32
    assert np.isfinite(direct).all()
    if system != "diffusion":  # which samples, by the names of texts and files
        assert np.allclose(encoded, direct, atol=1e-6)
    assert model.info.recipe.model in repr(model)


def test_an_index_answers_and_a_stage_runs_from_python(films, tmp_path, capsys) -> None:
    best = checkpoint(tmp_path, "mean")[2]
    words = ["index", "--in", films[0].parent, "--checkpoint", best, "--out", tmp_path / "idx"]

    tvrkit.command(*words, "-j", "1")
    index = tvrkit.Index(tmp_path / "idx")
    answers = index.search("a dog runs", top=1)

    assert len(index) == 2 and len(answers) == 1
    assert answers[0].rank == 1 and Path(answers[0].path) in films
    assert np.isclose(
        answers[0].score, index.model.score(["a dog runs"], films).max(), atol=1e-3
    )  # rows of an index are float16


def test_metrics_of_a_matrix_and_what_does_not_fit() -> None:
    found = tvrkit.evaluate(np.eye(3, dtype=np.float32), [0, 1, 1])

    assert found["t2v"]["R1"] == pytest.approx(200 / 3)
    with pytest.raises(tvrkit.TvrError, match="targets go from 0 to 3"):
        tvrkit.evaluate(np.eye(3), [0, 1, 3])
    with pytest.raises(tvrkit.TvrError, match="shape"):
        tvrkit.evaluate(np.eye(3), [0, 1])


def test_errors_name_what_is_wrong(films, tmp_path) -> None:
    model = tvrkit.load(checkpoint(tmp_path, "mean")[2])

    with pytest.raises(tvrkit.TvrError, match="no such file"):
        model.encode_videos([tmp_path / "gone.mp4"])
    with pytest.raises(tvrkit.TvrError, match="there is no text"):
        model.encode_text([])
    with pytest.raises(tvrkit.TvrError, match="no command 'compres'"):
        tvrkit.command("compres")
    with pytest.raises(tvrkit.TvrError, match="Missing option"):
        tvrkit.command("compress")
    with pytest.raises(tvrkit.TvrError, match="Did you mean demo"):
        tvrkit.run("demoo", work=tmp_path)


def test_every_name_of_the_library_is_documented_and_there() -> None:
    page = (tvrkit.ROOT / "docs" / "python.md").read_text(encoding="utf-8")

    for name in tvrkit.__all__:
        assert getattr(tvrkit, name) is not None
        assert name.startswith("__") or f"`{name}" in page or f"`tvrkit.{name}" in page, name


COUNT = '''"""Count the bytes of every video.

A stage of somebody else's.
"""

from pydantic import BaseModel, Field

from pipeline.core import stage
from pipeline.core.stage import Item, Need, Outcome
from pipeline.stages.probe import video_paths


class Options(BaseModel, extra="forbid"):
    times: int = Field(1, ge=1, description="factor")


class Stage(stage.Stage):
    needs = {"videos": Need("video_files")}
    makes = "report"
    runs = "workers"
    store = "files"
    Options = Options

    def items(self):
        for item_id, path in video_paths(self.inputs["videos"]):
            yield Item(item_id, "1", path, str(path))

    def process(self, item):
        return Outcome(facts={"bytes": item.payload.stat().st_size * self.options.times})

    def finish(self, records):
        return {"bytes": sum(record.facts["bytes"] for record in records)}
'''


def test_a_stage_of_a_folder_elsewhere_runs_in_workers(films, tmp_path, run_cli) -> None:
    plugins = tmp_path / "tools"
    (plugins / "stages").mkdir(parents=True)
    (plugins / "stages" / "count.py").write_text(COUNT)
    words = ["--in", str(films[0].parent), "--out", "counts", "--times", "2", "-j", "2"]

    help_text = run_cli("--plugins", "tools", "--help")
    made = run_cli("--plugins", "tools", "count", *words, "--json")
    (plugins / "stages" / "compress.py").write_text(COUNT)
    twice = run_cli("--plugins", "tools", "compress", *words)
    nothing = run_cli("--plugins", str(films[0].parent), "doctor")

    assert re.search("count +Count the bytes of every video.", help_text.stdout)
    assert made.returncode == 0, made.stderr
    size = sum(film.stat().st_size for film in films)
    assert json.loads(made.stdout)["summary"] == {"bytes": 2 * size}
    assert twice.returncode == 2 and "two folders have a stage 'compress'" in twice.stderr
    assert nothing.returncode == 2 and "holds none of stages" in nothing.stderr


def test_a_data_set_and_a_model_of_a_folder_elsewhere_are_named_like_ours(
    tmp_path, run_cli
) -> None:
    plugins = tmp_path / "tools"
    (plugins / "datasets").mkdir(parents=True)
    (plugins / "datasets" / "my_films.py").write_text(
        "from pipeline.datasets import folder\nOptions = folder.Options\nDataset = folder.Dataset\n"
    )
    for name in ("model.py", "options.py", "published.py"):
        own = plugins / "models" / "my_dgl" / name
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text((tvrkit.ROOT / "models" / "dgl" / name).read_text())
    (own.parent / "recipes.yaml").write_text(
        "recipes: {my_recipe: {extends: tiny_dgl, model: my_dgl}}"
    )
    own_yaml = "datasets: {films: {type: my_films, root: .}}\npipelines: {p: {dataset: films, steps: {compress: {}}}}"
    (tmp_path / "pipelines.yaml").write_text(own_yaml)

    shown = run_cli("--plugins", "tools", "show", "my_recipe")
    planned = run_cli("--plugins", "tools", "run", "p", "--dry-run")
    without = run_cli("run", "p", "--dry-run")

    assert "model: my_dgl" in shown.stdout and "# parameters: " in shown.stdout, shown.stderr
    assert planned.returncode == 0 and planned.stdout.startswith("compress"), planned.stderr
    assert without.returncode == 2 and "no dataset called 'my_films'" in without.stderr


def test_a_missing_package_is_named_with_the_command_that_brings_it(films, tmp_path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(tvrkit.ROOT)!r}); sys.modules['torch'] = None;"
        " import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    made = checkpoint(tmp_path, "mean")[2]
    words = ["search", str(made), "a dog", "--videos", str(tmp_path)]

    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)

    assert result.returncode == 6
    assert "the package torch is not installed here" in result.stderr
    assert "-m pip install torch" in result.stderr
