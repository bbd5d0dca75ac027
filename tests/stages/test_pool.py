"""Pooling frame features to one vector per video."""

import numpy as np
import pytest

from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.errors import DataError
from pipeline.stages.pool import Options, Stage
from pipeline.stores.big_file.reader import BigFile
from tests.stages.store_runs import ONE, killed_runs
from tests.stores.big_file.big_files import frames, publish, values
from tests.trees import tree


def pooled(folder, out, method="mean"):
    run(
        Stage(Options(method=method), {"features": Artefact("features", folder)}, out), settings=ONE
    )
    return BigFile.open(out)


def gauss(rows):
    """The published weights written out."""
    n = len(rows)
    weights = [np.exp(-abs(i - n / 2) / 4) for i in range(n)]
    return sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("mean", lambda r: r.mean(0)), ("max", lambda r: r.max(0)), ("gauss", gauss)],
)
def test_each_video_becomes_one_row(tmp_path, method, expected):
    store = BigFile.open(frames(tmp_path / "in", {"b": 5, "a": 1}))

    ours = pooled(tmp_path / "in", tmp_path / "out", method)

    assert ours.ids == ["b", "a"]
    assert not ours.has_frames
    for video_id in ours.ids:
        assert np.allclose(
            ours.read([video_id])[0], expected(store.read_video(video_id)), atol=1e-6
        )


def test_frames_that_lie_apart_are_pooled_in_playing_order(golden, tmp_path):
    case = golden / "dual-encoding" / "bigfile" / "from_text"

    ours = pooled(case, tmp_path, "gauss")

    assert ours.ids == ["clip_one_b", "vid7", "clip_one", "x"]
    assert np.allclose(
        ours.read(["vid7"])[0], gauss(BigFile.open(case).read(["vid7_0", "vid7_12"])), atol=1e-6
    )


def test_rows_of_no_video_are_not_lost_silently(golden, tmp_path):
    with pytest.raises(DataError, match="3 rows belong to no video: 'caf\xe9_0'"):
        pooled(golden / "dual-encoding" / "bigfile" / "latin1", tmp_path)


def test_features_without_frame_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no video2frames\.txt"):
        pooled(publish(tmp_path / "in", ["a"], values(1)), tmp_path / "out")


def test_kills_and_resumes_leave_the_same_bytes(tmp_path):
    folder = frames(tmp_path / "in", {f"video{n}": 3 for n in range(600)})
    pooled(folder, tmp_path / "whole")

    def make():
        return Stage(Options(), {"features": Artefact("features", folder)}, tmp_path / "out")

    killed_runs(make, tmp_path / "out", [0.0, 0.02, 0.04, 0.06])
    run(make(), settings=ONE)

    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_changed_input_pools_again(tmp_path):
    pooled(frames(tmp_path / "in", {"a": 2}), tmp_path / "out")

    ours = pooled(frames(tmp_path / "in", {"a": 2}, seed=5), tmp_path / "out")

    assert np.allclose(ours.read(["a"])[0], values(2, seed=5).mean(0), atol=1e-6)
