"""Names no id can abuse, files that are whole or absent, digests that notice every change."""

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.files import (
    DigestCache,
    atomic_path,
    atomic_write,
    disk_name,
    remove_temporaries,
)

any_name = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=300
)


@given(any_name)
def test_disk_name_stays_inside_its_folder_and_fits(item_id):
    path = PurePosixPath(disk_name(item_id, ".mp4"))

    assert not path.is_absolute()
    assert not {"..", ".", "_state"} & set(path.parts)
    assert all(len(part.encode()) <= 255 and not part.startswith(".tmp-") for part in path.parts)


@given(
    st.lists(
        st.text(alphabet="a/._%~Ж-", min_size=1, max_size=12), min_size=2, max_size=2, unique=True
    )
)
def test_distinct_ids_have_distinct_names(ids):
    assert disk_name(ids[0]) != disk_name(ids[1])


def test_plain_ids_keep_their_names():
    assert disk_name("a/video-1@2+x", ".mp4") == "a/video-1@2+x.mp4"


def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    atomic_write(tmp_path / "x", "old")

    with pytest.raises(ValueError, match="boom"), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("new")
        raise ValueError("boom")

    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_temporaries_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".tmp-0123").write_text("half")
    (tmp_path / "kept").write_text("whole")

    remove_temporaries(tmp_path)

    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["kept"]


def test_other_content_with_the_same_size_and_time_is_noticed(tmp_path):
    path = tmp_path / "x"
    path.write_text("aaaa")
    stat = path.stat()
    cache = DigestCache(tmp_path / "digests")
    before = cache(path)
    path.write_text("bbbb")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert cache(path) != before


def test_digests_are_remembered_across_runs(tmp_path):
    path = tmp_path / "x"
    path.write_text("aaaa")
    first = DigestCache(tmp_path / "digests")
    value = first(path)
    first.save()
    (tmp_path / "digests").open("ab").write(b'["torn')

    again = DigestCache(tmp_path / "digests")

    assert again._known[str(path)][4] == value
    assert again(path) == value
