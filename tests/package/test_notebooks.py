"""Every notebook runs from top to bottom, in a folder with videos and weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.search.systems import checkpoint
from tests.videos import Film, write

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_carries_no_output(notebook: Path, tmp_path: Path) -> None:
    for n in range(2):
        write(tmp_path / "videos" / f"{n}.mp4", Film(6, 3, 64, 48))
    checkpoint(tmp_path / "model", "mean")[2].rename(tmp_path / "ViT-B-32.pt")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    program = "\n\n".join("".join(cell["source"]) for cell in code)

    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert [cell for cell in code if cell["outputs"]] == []
