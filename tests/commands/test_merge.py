"""Parts of a stage that ran alone are joined by the folder they lie in."""

from pathlib import Path

import numpy as np
import pytest

from cli import main
from tests.stages.store_runs import big_file
from tests.trees import tree


@pytest.fixture
def raw(tmp_path: Path) -> list[str]:
    rows = {f"v{n}": np.full((2, 3), n + 1, np.float32) for n in range(9)}
    big_file(tmp_path / "raw", rows)
    return ["concat", *["--in", str(tmp_path / "raw")] * 2]


def test_merge_of_a_folder_gives_the_whole_and_counts_what_it_takes_over(raw, tmp_path, capsys):
    out = tmp_path / "out"
    for part in ("0/2", "1/2"):
        assert main([*raw, "--out", str(out), "--shard", part]) == 0
    capsys.readouterr()

    assert main(["merge", str(out)]) == 0

    told = capsys.readouterr().err
    assert main([*raw, "--out", str(tmp_path / "whole")]) == 0
    assert "(0 new, 9 kept)" in told
    assert tree(out) == tree(tmp_path / "whole")
    assert not (out / "_parts").exists()


def test_a_part_that_is_missing_is_named_with_the_command_that_makes_it(raw, tmp_path, capsys):
    assert main([*raw, "--out", str(tmp_path / "out"), "--shard", "0/2"]) == 0

    assert main(["merge", str(tmp_path / "out")]) == 4

    told = capsys.readouterr().err
    assert "001-of-002" in told
    assert "python cli.py concat" in told
