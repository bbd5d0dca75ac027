"""Recorded schedules and batches of Dual Encoding++ pass, and a changed record fails."""

import json
import shutil

import numpy as np
import pytest

from pipeline.parity.case import Case
from pipeline.parity.run import run_case


@pytest.mark.parametrize("name", ["schedule", "batching"])
def test_recorded_case_passes_completely(golden, name):
    report = run_case(Case(golden / "dual-encoding" / name))

    assert report.ok, report.faults or [row for row in report.rows if not row.ok]


def test_learning_rate_that_is_off_by_a_hair_fails(golden, tmp_path):
    shutil.copytree(golden / "dual-encoding" / "schedule", tmp_path / "schedule")
    arrays = dict(np.load(tmp_path / "schedule" / "outputs.npz"))
    arrays["run1"][6, 3] *= 1 + 1e-6
    np.savez(tmp_path / "schedule" / "outputs.npz", **arrays)

    report = run_case(Case(tmp_path / "schedule"))

    assert [row.name for row in report.rows if not row.ok] == ["run1"]


def test_batch_with_another_vocabulary_fails(golden, tmp_path):
    shutil.copytree(golden / "dual-encoding" / "batching", tmp_path / "batching")
    path = tmp_path / "batching" / "vocab.json"
    words = list(json.loads(path.read_text()))
    path.write_text(json.dumps({word: n for n, word in enumerate(words[:4] + words[:3:-1])}))

    report = run_case(Case(tmp_path / "batching"))

    assert [row.name for row in report.rows if not row.ok] == ["caption_batch"]
