"""The recorded CLIP cases pass, and a wrong model would not."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.parity.case import Case
from pipeline.parity.run import run_case
from pipeline.text.clip_bpe import find_table

CASES = ["vit-torchscript-fp16", "vit-state-dict", "resnet-torchscript-fp16", "preprocess"]


@pytest.mark.parametrize("name", CASES)
def test_recorded_backbones_and_pictures_agree(shared: Path, name: str) -> None:
    report = run_case(Case(shared / "golden/clip-backbone" / name))

    assert [row for row in report.rows if not row.ok] == []
    assert report.ok, report.faults


def test_recorded_strings_agree(golden: Path) -> None:
    try:
        find_table()
    except DataError as error:
        pytest.skip(f"the table of the installed openai-clip is needed: {error}")

    report = run_case(Case(golden / "clip-tokenizer"))

    assert [row for row in report.rows if not row.ok] == []
    assert report.ok, report.faults


def test_other_features_than_ours_fail_the_case(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    shutil.copytree(shared / "golden/clip-backbone/vit-state-dict", folder)
    folder.chmod(0o755)
    with np.load(folder / "outputs.npz") as old:
        arrays = {name: old[name] for name in old.files}
    (folder / "outputs.npz").unlink()
    np.savez(
        folder / "outputs.npz",
        **arrays | {"text_features": arrays["text_features"] + 2e-4, "new": np.zeros(1)},
    )

    report = run_case(Case(folder))

    assert {row.name for row in report.rows if not row.ok} == {
        "text_features",
        "text_features[all rows]",
    }
    assert report.faults == ["new: not compared"]
