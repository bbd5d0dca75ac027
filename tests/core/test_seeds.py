"""`seeds: 2` on a train step, and `train --seeds 2`: the same models, each under its own name."""

import json
from pathlib import Path

import pytest
import yaml

import cli
from pipeline.core.seeds import groups
from pipeline.evaluation.results import table

TINY = yaml.safe_load((Path(__file__).parents[1] / "tiny.yaml").read_text())


def written(folder: Path, train: dict, **steps: dict) -> Path:
    """A configuration whose pipeline trains the smallest CLIP for one epoch."""
    values = dict(TINY)
    values["recipes"]["smallest_clip"]["train"]["epochs"] = 1
    taken = {name: TINY["pipelines"]["tiny"]["steps"][name] for name in ("synthesize", "frames")}
    taken |= {"tensors": {"frames": {"size": 64}}, "train@clip": train} | steps
    values["pipelines"] = {"tiny": {"dataset": "tiny", "steps": taken}}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def run(config: Path, *more: str) -> int:
    work = config.parent / "work"
    return cli.main(["run", "tiny", "--config", str(config), "--work", str(work), "-j1", *more])


def test_more_seeds_keep_the_first_model_and_train_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = written(tmp_path, {"recipe": "smallest_clip"}, evaluate={})
    made = tmp_path / "work" / "tiny"
    assert run(config) == 0
    first = (made / "train@clip/checkpoints/best.pt").read_bytes()

    assert run(config, "--set", "train@clip.seeds=2") == 0

    other = (made / "train@clip-seed43/checkpoints/best.pt").read_bytes()
    assert (made / "train@clip/checkpoints/best.pt").read_bytes() == first != other
    told = table(made / "evaluate")
    rows = [
        json.loads((made / "evaluate" / name / "metrics.json").read_text())["results"]["none"]
        for name in ("train@clip", "train@clip-seed43")
    ]
    mean = sum(row["Rsum"] for row in rows) / 2
    line = next(line for line in told.splitlines() if line.startswith("train@clip       2"))
    assert f"{mean:.1f} +- " in line

    capsys.readouterr()
    code = cli.main(
        f"train --recipe smallest_clip --tensors {made}/tensors --annotations tiny"
        f" --out {tmp_path}/alone --seeds 2 --config {config}".split()
    )
    assert code == 0, capsys.readouterr().err
    for name, step in (("alone", "train@clip"), ("alone-seed43", "train@clip-seed43")):
        log = (tmp_path / name / "metrics.jsonl").read_bytes()
        assert log == (made / step / "metrics.jsonl").read_bytes()
    assert "alone-seed43" in capsys.readouterr().out


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for train, more, told in (
        ({"recipe": "smallest_clip", "seeds": 0}, {}, "a whole number from 1 to 100, not 0"),
        ({"recipe": "smallest_clip", "seeds": "x"}, {}, "a whole number from 1 to 100, not 'x'"),
        ({"recipe": "smallest_clip"}, {"evaluate": {"seeds": 2}}, "only a train step"),
        (
            {"recipe": "smallest_clip", "seeds": 2},
            {"train@clip-seed43": {"recipe": "smallest_clip"}},
            "a run of train@clip has this name",
        ),
    ):
        assert run(written(tmp_path, train, **more), "--dry-run") == 2
        assert told in capsys.readouterr().err


def test_runs_of_one_step_belong_together() -> None:
    names = ["backbone", "train@drl", "train@drl-seed43", "x-seed7", "train@drl-seed44"]

    assert groups(names) == {"train@drl": ["train@drl", "train@drl-seed43", "train@drl-seed44"]}
