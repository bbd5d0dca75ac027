"""The pointer that the adopt step leaves, and what may be wrong with it."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.adopted import POINTER, point, resolve
from pipeline.errors import DataError


@pytest.fixture
def step(tmp_path):
    target = tmp_path / "published"
    target.mkdir()
    (target / "feature.bin").write_bytes(b"1234")
    (tmp_path / "step").mkdir()
    point(tmp_path / "step", target, "bigfile", "digest", ["feature.bin"])
    return tmp_path / "step"


def test_a_folder_without_a_pointer_is_itself(tmp_path):
    assert resolve(tmp_path, "bigfile") == tmp_path


def test_a_pointer_leads_to_the_adopted_folder(step):
    assert resolve(step, "bigfile") == step.parent / "published"


def test_another_format_is_refused(step):
    with pytest.raises(DataError, match="adopted a bigfile, not a frame_store"):
        resolve(step, "frame_store")


def test_a_file_that_changed_its_size_is_refused(step):
    (step.parent / "published" / "feature.bin").write_bytes(b"123")

    with pytest.raises(DataError, match="has 3 bytes, it had 4"):
        resolve(step)


def test_a_file_that_is_gone_is_refused(step):
    (step.parent / "published" / "feature.bin").unlink()

    with pytest.raises(DataError, match="cannot be read"):
        resolve(step)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=40)
    | st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps).map(str.encode)
)
def test_any_other_bytes_are_no_pointer(tmp_path, data):
    (tmp_path / POINTER).write_bytes(data)

    with pytest.raises(DataError, match="not a pointer"):
        resolve(tmp_path)


def test_a_pointer_to_files_outside_its_folder_is_no_pointer(step):
    fields = json.loads((step / POINTER).read_text()) | {"bytes": {"../../etc/passwd": 1}}
    (step / POINTER).write_text(json.dumps(fields))

    with pytest.raises(DataError, match="not a pointer"):
        resolve(step)
