"""The evaluate stage encodes in bfloat16 if asked to: nearly the same encodings, in float32
files.
"""

from pathlib import Path

import numpy as np

from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.evaluation import results
from pipeline.stages.evaluate import Stage as Evaluate
from pipeline.stages.train import Stage as Train
from tests.evaluation.world import evaluate, world
from tests.feeding import frames_toy


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_bfloat16_changes_the_features_of_a_clip_little(tmp_path: Path) -> None:
    inputs = frames_toy.build(tmp_path)
    given = {name: inputs.get(name) for name in Train.needs}
    options = Train.Options(recipe=frames_toy.recipe(epochs=1), threads=1, tensorboard=False)
    run(Train(options, given, tmp_path / "train"), "train", Settings(jobs=1))
    inputs |= {
        "checkpoints": [Artefact("checkpoint", tmp_path / "train", content="c", step="train")]
    }
    found = []

    for precision in ("float32", "bfloat16"):
        given = {name: inputs.get(name) for name in Evaluate.needs}
        run(
            Evaluate(Evaluate.Options(precision=precision), given, tmp_path / precision),
            "e",
            Settings(jobs=1),
        )
        found.append(results.read_vectors(tmp_path / precision / "train"))

    for side in ("text", "video"):
        exact, half = (vectors[side]["feature"] for vectors in found)
        assert half.dtype == np.float32
        assert not np.array_equal(exact, half)
        assert cosines(exact, half).min() > 0.995  # bfloat16 has 8 bits: about 0.4 % per operation


def test_models_of_features_encode_in_bfloat16_too(tmp_path: Path) -> None:
    exact, half = (
        evaluate(tmp_path / p, world().inputs, precision=p) for p in ("float32", "bfloat16")
    )

    assert exact and half
    a, b = (
        results.read_vectors(tmp_path / p / "train")["text"]["latent"]
        for p in ("float32", "bfloat16")
    )
    assert cosines(a, b).min() > 0.99
