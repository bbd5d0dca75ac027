"""Recorded cases of DGL pass completely, and a model that differs in one place does not."""

import json
import shutil

import numpy as np
import pytest
import torch

from pipeline.parity.case import Case
from pipeline.parity.dgl.model import train_options
from pipeline.parity.run import run_case

MODELS = [
    "transformer_p4",
    "linear_p4_two_heads",
    "transformer_p2_3d_bertadam",
    "linear_full_tuning",
]


@pytest.mark.parametrize("name", ["frame_sampling", "qb_norm", "metrics", "text_encoding"])
def test_recorded_data_case_passes_completely(golden, name):
    report = run_case(Case(golden / "dgl" / name))

    assert report.ok, report.faults or [row for row in report.rows if not row.ok]


@pytest.mark.parametrize("name", MODELS)
def test_recorded_model_passes_completely(shared, name):
    report = run_case(Case(shared / "golden" / "dgl" / name))

    assert report.ok, report.faults or [row for row in report.rows if not row.ok]


def test_one_weight_that_is_off_fails(shared, tmp_path):
    shutil.copytree(
        shared / "golden/dgl/linear_p4_two_heads", tmp_path / "case", copy_function=shutil.copyfile
    )
    file = torch.load(tmp_path / "case/ckpt.best.pth.tar", weights_only=True)
    file["state_dict"]["module.clip.visual_prompt_embedding"][0, 0, 0] += 0.5
    torch.save(file, tmp_path / "case/ckpt.best.pth.tar")

    report = run_case(Case(tmp_path / "case"))

    failed = {row.name for row in report.rows if not row.ok}
    assert {
        "prompts_visual",
        "video_feature/global_prompt0",
        "text_feature",
        "train/loss",
    } <= failed


def test_another_optimizer_fails(shared, tmp_path):
    shutil.copytree(
        shared / "golden/dgl/linear_p4_two_heads", tmp_path / "case", copy_function=shutil.copyfile
    )
    path = tmp_path / "case/case.json"
    values = json.loads(path.read_text())
    values["options"]["wd"] = 0.4
    path.write_text(json.dumps(values))

    failed = {
        row.name.partition("/")[0] for row in run_case(Case(tmp_path / "case")).rows if not row.ok
    }

    assert failed == {"after_step_fresh", "after_step_resumed"}


def test_another_best_beta_fails(golden, tmp_path):
    shutil.copytree(golden / "dgl/qb_norm", tmp_path / "case", copy_function=shutil.copyfile)
    arrays = dict(np.load(tmp_path / "case/outputs.npz"))
    arrays["best_beta"] = arrays["best_beta"] + 0.01
    np.savez(tmp_path / "case/outputs.npz", **arrays)

    assert [row.name for row in run_case(Case(tmp_path / "case")).rows if not row.ok] == [
        "best_beta"
    ]


def test_no_warm_up_is_said_by_minus_one(shared):
    settings = json.loads((shared / "golden/dgl/transformer_p2_3d_bertadam/case.json").read_text())[
        "options"
    ]

    assert train_options(settings | {"warmup_proportion": -1}).schedule.warmup == 0
