"""The published quirks of Dual Encoding++ through `train` and `evaluate`, each by its option."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.checkpoints import model_file
from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.evaluation import results
from pipeline.stages.evaluate import Options, Stage
from tests.stages.test_train import RECIPE, inputs, recipe, train  # noqa: F401

QUIRKS = {"pooling": "padded", "scaling": "shifted_max", "concept_double_pass": True}


def lines(folder: Path, event: str) -> list[dict]:
    return [
        x
        for x in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        if x["event"] == event
    ]


def evaluated(given: dict, out: Path, model: Path, **options: object) -> dict:
    """The encodings of the validation split."""
    needed = {name: given.get(name) for name in Stage.needs}
    needed["checkpoints"] = [Artefact("checkpoint", model, "f", str(model), "m")]
    run(Stage(Options(split="val", **options), needed, out), "evaluate", jobs=1)
    return results.read_vectors(out / "m")["video"]


def test_concept_heads_run_twice_per_step_by_option_only(inputs, tmp_path) -> None:  # noqa: F811
    for name, options in (("once", {}), ("twice", {"concept_double_pass": True})):
        train(inputs, tmp_path / name, recipe(epochs=1) | {"options": RECIPE["options"] | options})

    counts = {
        (name, space): int(
            model_file.load_model(tmp_path / name)[0].state_dict()[
                f"{space}.text.norm.num_batches_tracked"
            ]
        )
        for name in ("once", "twice")
        for space in ("latent", "concept")
    }
    assert counts == {
        ("once", "latent"): 3,
        ("once", "concept"): 3,
        ("twice", "latent"): 3,
        ("twice", "concept"): 6,
    }


def test_captions_are_taken_raw_by_option_only(inputs, tmp_path) -> None:  # noqa: F811
    for name, clean in (("clean", True), ("raw", False)):
        train(inputs, tmp_path / name, recipe(epochs=1, clean_captions=clean))

    clean, raw = (
        model_file.load_model(tmp_path / name)[1].text_encoder.ids(["a RED circle!"])[0]
        for name in ("clean", "raw")
    )
    assert 3 not in clean
    assert raw == [clean[0], 3, 3]


def test_plateau_cuts_the_rate_and_goes_back_to_the_best_weights(inputs, tmp_path) -> None:  # noqa: F811
    schedule = {"name": "plateau", "on_best": 0.99, "factor": 0.5, "wait": 1, "reload_best": True}
    values = recipe(
        epochs=12, optimizer={"name": "adam", "lr": 0.5}, schedule=schedule, log_every=1, tie="last"
    )

    train(inputs, tmp_path, values)

    rates = {line["epoch"]: line["lr"][0] for line in lines(tmp_path, "train")}
    for line in lines(tmp_path, "validation")[:-1]:
        factor = 0.99 if line["best"] else 0.5
        assert rates[line["epoch"] + 1] == pytest.approx(rates[line["epoch"]] * factor)
    assert any(not line["best"] for line in lines(tmp_path, "validation"))


def test_published_chunks_change_padded_encodings_and_masked_ones_hardly(inputs, tmp_path) -> None:  # noqa: F811
    for name, options in (("padded", QUIRKS), ("masked", {})):
        train(inputs, tmp_path / name, recipe(epochs=1) | {"options": RECIPE["options"] | options})

    found = {
        (name, chunk): evaluated(inputs, tmp_path / f"{name}{chunk}", tmp_path / name, chunk=chunk)[
            "latent"
        ]
        for name in ("padded", "masked")
        for chunk in (1, -1, 1000)
    }
    assert np.abs(found["padded", 1] - found["padded", -1]).max() > 1e-3
    assert np.allclose(found["masked", 1], found["masked", -1], atol=1e-5)
    assert (found["padded", -1] == found["padded", 1000]).all()


def test_validation_in_published_chunks_scores_as_evaluate_does(inputs, tmp_path) -> None:  # noqa: F811
    values = recipe(epochs=1, evaluation={"chunk": 5}) | {"options": RECIPE["options"] | QUIRKS}
    train(inputs, tmp_path / "model", values)

    evaluated(inputs, tmp_path / "results", tmp_path / "model", chunk=5)

    figures = results.read_metrics(tmp_path / "results" / "m")["results"]["none"]
    assert lines(tmp_path / "model", "validation")[0]["rsum"] == pytest.approx(figures["Rsum"])
