"""Joining features of the same frames."""

import numpy as np
import pytest

from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.errors import ConfigError, DataError
from pipeline.stages.concat import Stage
from pipeline.stores.big_file.reader import BigFile
from tests.stages.store_runs import ONE
from tests.stores.big_file.big_files import frames, publish, values


def joined(out, *folders):
    inputs = [Artefact("features", folder) for folder in folders]
    run(Stage(Stage.Options(), {"features": inputs}, out), settings=ONE)
    return BigFile.open(out)


def test_rows_are_joined_by_id_in_the_order_of_the_first(tmp_path):
    first = BigFile.open(frames(tmp_path / "a", {"x": 2, "y": 3}, dim=2))
    second = BigFile.open(frames(tmp_path / "b", {"y": 3, "x": 2}, dim=4, seed=7))

    ours = joined(tmp_path / "out", tmp_path / "a", tmp_path / "b")

    assert ours.ids == first.ids
    assert ours.videos == first.videos
    assert (ours.read(ours.ids) == np.hstack([first.read(first.ids), second.read(first.ids)])).all()


def test_vectors_of_whole_videos_are_joined_too(tmp_path):
    publish(tmp_path / "a", ["x", "y"], values(2, 1))
    publish(tmp_path / "b", ["y", "x"], values(2, 1, seed=1))

    ours = joined(tmp_path / "out", tmp_path / "a", tmp_path / "b")

    assert not ours.has_frames
    assert (ours.read(["x"])[0] == [values(2, 1)[0, 0], values(2, 1, seed=1)[1, 0]]).all()


def test_different_sets_of_ids_are_refused_with_both_sides(tmp_path):
    frames(tmp_path / "a", {"x": 2})
    frames(tmp_path / "b", {"x": 1, "z": 1})

    with pytest.raises(DataError, match=r"1 ids are missing: 'x_1'; 1 ids are not in .*: 'z_0'"):
        joined(tmp_path / "out", tmp_path / "a", tmp_path / "b")


def test_a_first_input_whose_rows_are_mixed_is_refused(golden, tmp_path):
    case = golden / "dual-encoding" / "bigfile" / "from_text"

    with pytest.raises(DataError, match="video by video"):
        joined(tmp_path, case, case)


def test_one_input_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="1 features given"):
        joined(tmp_path / "out", frames(tmp_path / "a", {"x": 2}))
