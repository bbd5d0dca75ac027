"""Several features become one folder: text in and out, first rows win, rows are scaled, frames keep
their lists.
"""

from pathlib import Path

import numpy as np
import pytest

import cli
from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.stages.union import Options, Stage
from pipeline.stores.big_file.reader import BigFile
from tests.stages.store_runs import ONE, killed_runs
from tests.stores.big_file.big_files import frames, publish, values
from tests.trees import tree


def union(out: Path, *arguments: object) -> int:
    return cli.main(["union", *map(str, arguments), "--out", str(out)])


def test_recorded_text_becomes_the_recorded_folder_in_every_byte(
    golden: Path, tmp_path: Path
) -> None:
    case = golden / "dual-encoding" / "bigfile"

    assert union(tmp_path, "--in", case / "id.feature.txt") == 0

    assert tree(tmp_path) == tree(case / "from_text")


def test_text_that_is_written_comes_back_in_every_bit(tmp_path: Path) -> None:
    frames(tmp_path / "in", {"b": 5, "a": 1})

    union(tmp_path / "out", "--in", tmp_path / "in", "--text")
    union(tmp_path / "again", "--in", tmp_path / "out" / "id.feature.txt")

    assert tree(tmp_path / "again") == tree(tmp_path / "in")


def test_first_row_of_an_id_counts_and_what_is_left_out_is_said(tmp_path: Path, capsys) -> None:
    rows = values(6)
    publish(tmp_path / "a", ["x", "y", "z"], rows[:3])
    (tmp_path / "b.txt").write_text("y 1 2 3\nw 1 nan 3\nv 4 5 6\n")

    assert union(tmp_path / "out", "--in", tmp_path / "a", "--in", tmp_path / "b.txt") == 0

    store = BigFile.open(tmp_path / "out")
    assert store.ids == ["x", "y", "z", "v"]
    assert np.array_equal(store.read(["y", "v"]), [rows[1], [4, 5, 6]])
    assert "rows left out: 1 repeated, 1 not_finite" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "expected"), [
    (["--norm", "l1"], [0.125, -0.5, 0.375]),
    (["--norm", "l2"], np.array([1, -4, 3]) / np.sqrt(26)),
    (["--signed-sqrt"], [1, -2, np.sqrt(3)]),
    (["--signed-sqrt", "--norm", "l2"], np.array([1, -2, np.sqrt(3)]) / np.sqrt(8)),
])  # fmt: skip
def test_rows_are_scaled_as_published(tmp_path: Path, options: list[str], expected) -> None:
    (tmp_path / "a.txt").write_text("x 1 -4 3\ny 0 0 0\n")

    union(tmp_path / "out", "--in", tmp_path / "a.txt", *options)

    rows = BigFile.open(tmp_path / "out").read(["x", "y"])
    assert np.allclose(rows, [expected, [0, 0, 0]], atol=1e-6)


def test_lists_of_frames_are_joined(tmp_path: Path) -> None:
    frames(tmp_path / "a", {"v": 2})
    frames(tmp_path / "b", {"v": 3, "w": 1})

    union(tmp_path / "out", "--in", tmp_path / "a", "--in", tmp_path / "b")
    union(tmp_path / "plain", "--in", tmp_path / "a", "--frames", "no")

    assert BigFile.open(tmp_path / "out").videos == {"v": ["v_0", "v_1", "v_2"], "w": ["w_0"]}
    assert not BigFile.open(tmp_path / "plain").has_frames


@pytest.mark.parametrize(("arguments", "text", "code", "told"), [
    (["--in", "a.txt"], "x 1 2\ny 1\n", 4, "a.txt:2: 1 values for 'y', the first row has 2"),
    (["--in", "a.txt"], "\n", 4, "there is no row in it"),
    (["--in", "a.txt", "--frames", "yes"], "x 1 2\n", 4, "ids that are not <video>_<number>"),
    (["--in", "gone.txt"], "", 4, "gone.txt"),
])  # fmt: skip
def test_bad_input_is_explained(tmp_path, capsys, monkeypatch, arguments, text, code, told) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(text)

    assert union(tmp_path / "out", *arguments) == code

    message = capsys.readouterr().err
    assert told in message
    assert message.splitlines()[-1].startswith("    ")


def test_kills_leave_nothing_wrong(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", {f"v{n}": 20 for n in range(20)}, dim=50)

    def make() -> Stage:
        return Stage(
            Options(norm="l2", text=True),
            {"features": [Artefact("features", source)]},
            tmp_path / "out",
        )

    killed_runs(make, tmp_path / "out", [0.0, 0.02, 0.04, 0.08])
    run(make(), settings=ONE)

    whole = Stage(
        Options(norm="l2", text=True),
        {"features": [Artefact("features", source)]},
        tmp_path / "whole",
    )
    run(whole, settings=ONE)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
