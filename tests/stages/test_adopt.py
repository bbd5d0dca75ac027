"""Taking over a ready BigFile."""

import numpy as np
import pytest

from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.errors import DataError
from pipeline.stages.adopt import Options, Stage
from pipeline.stages.pool import Stage as Pool
from pipeline.stores.big_file.reader import BigFile
from tests.stages.store_runs import ONE
from tests.stores.big_file.big_files import frames, publish, values


def adopt(path, out) -> dict:
    return run(Stage(Options(path=path), {}, out), settings=ONE)


def test_an_adopted_folder_opens_through_the_step_and_is_not_copied(tmp_path):
    folder = frames(tmp_path / "published", {"a": 2, "b": 1})

    manifest = adopt(folder, tmp_path / "step")

    assert manifest["makes"] == "features"
    assert BigFile.open(tmp_path / "step").videos == BigFile.open(folder).videos
    assert sum(p.stat().st_size for p in (tmp_path / "step").glob("*")) < 10_000


def test_counts_and_digest_are_recorded(golden, tmp_path):
    manifest = adopt(golden / "dual-encoding" / "bigfile" / "latin1", tmp_path)

    facts = manifest["summary"]
    assert (facts["rows"], facts["dim"], facts["videos"], facts["unlisted"]) == (4, 5, 1, 3)
    assert len(facts["digest"]) == 64


def test_nothing_is_done_again_while_nothing_changed(tmp_path):
    folder = frames(tmp_path / "published", {"a": 2})

    first, second = adopt(folder, tmp_path / "step"), adopt(folder, tmp_path / "step")

    assert first == second


def test_other_content_under_the_same_path_is_adopted_anew(tmp_path):
    first = adopt(frames(tmp_path / "published", {"a": 2}), tmp_path / "step")

    second = adopt(frames(tmp_path / "published", {"a": 2}, seed=1), tmp_path / "step")

    assert first["content"] != second["content"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(tmp_path, bad):
    rows = values(5000)
    rows[4321, 1] = bad
    publish(tmp_path / "published", [f"v_{n}" for n in range(5000)], rows)

    with pytest.raises(DataError, match="1 of 5,000 rows hold NaN or infinite values: 'v_4321'"):
        adopt(tmp_path / "published", tmp_path / "step")


def test_a_truncated_folder_is_refused_before_it_is_adopted(tmp_path):
    folder = frames(tmp_path / "published", {"a": 2})
    with (folder / "feature.bin").open("r+b") as file:
        file.truncate(7)

    with pytest.raises(DataError, match="has 7 bytes"):
        adopt(folder, tmp_path / "step")


def test_later_steps_read_what_was_adopted(tmp_path):
    adopt(frames(tmp_path / "published", {"a": 2}), tmp_path / "step")

    run(
        Pool(
            Pool.Options(), {"features": Artefact("features", tmp_path / "step")}, tmp_path / "out"
        ),
        settings=ONE,
    )

    assert np.allclose(BigFile.open(tmp_path / "out").read(["a"])[0], values(2).mean(0), atol=1e-6)
