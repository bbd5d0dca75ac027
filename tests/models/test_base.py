import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.base import Assets, Mismatch, Ranking, RetrievalModel, gather, load_init
from tests.models.gather_worker import gradients

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> dict[str, list[float]]:
    store = tmp_path_factory.mktemp("gather") / "store"
    command = [sys.executable, "-m", "tests.models.gather_worker"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(store)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    return json.loads(outputs[0])


def test_full_gradients_of_two_processes_are_those_of_one(two_processes):
    alone = gradients(torch.arange(10.0).view(5, 2) / 10, "full_gradient")

    assert two_processes["full_gradient"] == pytest.approx(alone, rel=1e-5)


def test_local_gradients_shrink_before_the_gather_and_not_after_it(two_processes):
    *before, after = gradients(torch.arange(10.0).view(5, 2) / 10, "local_gradient")

    assert two_processes["local_gradient"] == pytest.approx(
        [g / 2 for g in before] + [after], rel=1e-5
    )


def test_gather_is_the_identity_in_one_process():
    x = {"latent": torch.ones(2, 3)}

    assert gather(x) is x


def test_the_only_score_is_the_ranking_of_a_model_without_fusion():
    score = torch.arange(6.0).view(2, 3)

    ranking = RetrievalModel().fuse({"cosine": score}, {}, {})

    assert isinstance(ranking, Ranking)
    assert torch.equal(ranking.t2v, score)
    assert torch.equal(ranking.v2t, score.T)


def test_weights_that_do_not_fit_are_all_named():
    model = RetrievalModel()
    model.layer, model.other = torch.nn.Linear(2, 3), torch.nn.Linear(1, 1, bias=False)

    with pytest.raises(Mismatch) as error:
        load_init(
            model,
            Assets(
                init={
                    "layer.weight": torch.zeros(3, 4),
                    "layer.bias": torch.zeros(3),
                    "head": torch.zeros(1),
                }
            ),
        )

    for part in (
        "layer.weight is (3, 4), the model has (3, 2)",
        "missing: other.weight",
        "unknown: head",
    ):
        assert part in error.value.what
