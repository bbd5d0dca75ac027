"""The old result stays until the new one is complete; a costly one is set aside; what is there is
checked.
"""

import os
from pathlib import Path

import pytest

from pipeline.core.artefact import content_of_input
from pipeline.core.files import link_or_copy, remove_temporaries
from pipeline.core.results import generations
from pipeline.core.runner import Settings, run
from pipeline.core.state import read_manifest, usable_records
from pipeline.errors import DataError, Interrupted, TooManyFailures
from tests.core.toy import FileStage, Options, StoreStage
from tests.trees import tree

ONE = Settings(jobs=1, max_failures=1.0)


class Whole(FileStage):
    """Its files are replaced together, as those of an evaluation are."""

    runs = "inline"


class Costly(Whole):
    keeps = True


class Store(StoreStage):
    runs = "inline"


class Watched(Store):
    watches_inputs = True


class WatchedFiles(FileStage):
    runs = "inline"
    watches_inputs = True


def go(kind, out: Path, settings: Settings = ONE, **options) -> dict:
    return run(kind(Options(**options), {}, out), "toy", settings)


def stopped(kind, out: Path, **options) -> None:
    """A run that ends at its fifth item."""

    class Ends(kind):
        __module__ = kind.__module__
        done = 0

        def process(self, item):
            Ends.done += 1
            if Ends.done == 5:
                raise KeyboardInterrupt
            return super().process(item)

    with pytest.raises(KeyboardInterrupt):
        go(Ends, out, **options)


@pytest.mark.parametrize("kind", [Whole, Costly, Store])
def test_an_update_that_is_interrupted_leaves_the_old_result_as_it_was(kind, tmp_path):
    go(kind, tmp_path)
    before = tree(tmp_path), read_manifest(tmp_path), usable_records(tmp_path)

    stopped(kind, tmp_path, power=3)

    now = {name: value for name, value in tree(tmp_path).items() if not name.startswith("_new")}
    assert (now, read_manifest(tmp_path), usable_records(tmp_path)) == before


@pytest.mark.parametrize("kind", [Whole, Costly, Store])
def test_an_interrupted_update_goes_on_and_ends_as_a_fresh_run(kind, tmp_path):
    go(kind, tmp_path / "a")
    stopped(kind, tmp_path / "a", power=3)
    go(kind, tmp_path / "a", power=3)

    go(kind, tmp_path / "b", power=3)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("kind", [Whole, Store])
def test_the_old_options_again_find_the_old_result_and_drop_what_was_begun(kind, tmp_path):
    go(kind, tmp_path)
    before = tree(tmp_path)
    stopped(kind, tmp_path, power=3)

    go(kind, tmp_path)

    assert tree(tmp_path) == before


def test_files_that_are_replaced_one_by_one_count_as_unfinished_until_all_are(tmp_path):
    go(FileStage, tmp_path / "a")
    changed = {f"n{n:03d}": n + 100 for n in range(12)}
    fast = Settings(jobs=1, max_failures=1.0, fail_fast=True)

    with pytest.raises(TooManyFailures):
        go(FileStage, tmp_path / "a", fast, values=changed, missing=["n006"])

    assert read_manifest(tmp_path / "a") is None
    go(FileStage, tmp_path / "a", Settings(jobs=1, retry_failed=True), values=changed)
    go(FileStage, tmp_path / "b", values=changed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_costly_result_and_the_progress_of_another_are_both_kept(tmp_path):
    go(Costly, tmp_path)
    first = tree(tmp_path)
    stopped(Costly, tmp_path, power=3)
    stopped(Costly, tmp_path, power=4)
    go(Costly, tmp_path, power=4)

    kept = generations.kept_results(tmp_path)

    assert sorted(k.is_complete for k in kept) == [False, True]
    (whole,) = (k.path for k in kept if k.is_complete)
    assert tree(whole) == first


def test_a_first_training_that_was_interrupted_is_kept_when_other_options_come(tmp_path):
    stopped(Costly, tmp_path, power=3)
    left = {path.name for path in tmp_path.glob("*.json")}

    go(Costly, tmp_path, power=2)

    (kept,) = generations.kept_results(tmp_path)
    assert {path.name for path in kept.path.glob("*.json")} == left
    assert len(left) == 4


@pytest.mark.parametrize("moves", range(16))
def test_a_kill_while_the_new_result_takes_its_place_goes_on(moves, tmp_path, monkeypatch):
    go(Store, tmp_path / "a", values={"n003": 7})
    go(Costly, tmp_path / "c")
    done = 0
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        nonlocal done
        done += ".tmp-" not in path.name
        if done > moves:
            raise Interrupted("killed")
        return real(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        for kind, name in ((Store, "a"), (Costly, "c")):
            done = 0
            try:
                go(kind, tmp_path / name, power=3)
            except Interrupted:
                continue
    go(Store, tmp_path / "a", power=3)
    go(Costly, tmp_path / "c", power=3)

    go(Store, tmp_path / "b", power=3)
    go(Costly, tmp_path / "d", power=3)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "c") == tree(tmp_path / "d")
    assert len(generations.kept_results(tmp_path / "c")) == 1


@pytest.mark.parametrize("kind", [Watched, WatchedFiles])
@pytest.mark.parametrize("left", [0, 5])
def test_an_input_that_is_mostly_gone_changes_nothing(kind, left, tmp_path):
    go(kind, tmp_path)
    before = tree(tmp_path), read_manifest(tmp_path)

    with pytest.raises(DataError, match="12") as caught:
        go(kind, tmp_path, count=left)

    assert (tree(tmp_path), read_manifest(tmp_path)) == before
    assert "--allow-removals" in caught.value.fix


@pytest.mark.parametrize("kind", [Watched, WatchedFiles])
def test_removals_that_are_meant_are_made_and_counted(kind, tmp_path, caplog):
    caplog.set_level("INFO")
    go(kind, tmp_path / "a")
    go(kind, tmp_path / "a", Settings(jobs=1, allow_removals=True), count=5)

    go(kind, tmp_path / "b", count=5)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert "(0 new, 5 kept, 7 removed)" in caplog.text


@pytest.mark.parametrize("kind", [Watched, WatchedFiles, FileStage])
def test_results_of_items_that_can_no_longer_be_read_are_kept(kind, tmp_path):
    go(kind, tmp_path)
    before = tree(tmp_path)
    lost = [f"n{n:03d}" for n in range(8)]
    changed = dict.fromkeys(lost, 99)  # what a file that cannot be read looks like

    with pytest.raises(TooManyFailures, match="8 of the 12 items that had a result fail now"):
        go(kind, tmp_path, missing=lost, values=changed)
    kept = {name: value for name, value in tree(tmp_path).items() if not name.startswith("_new")}
    manifest = go(kind, tmp_path)

    assert kept == before
    assert tree(tmp_path) == before
    assert manifest["counts"]["ok"] == 12


@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
@pytest.mark.parametrize("kind", [FileStage, Whole, Store])
def test_a_result_that_is_not_as_it_was_written_is_made_again(kind, harm, tmp_path):
    go(kind, tmp_path)
    before = tree(tmp_path)
    file = sorted(tmp_path.glob("n*.*"))[0]
    data = file.read_bytes()
    file.unlink() if harm == "gone" else file.write_bytes(
        data[:-1] if harm == "cut" else bytes([data[0] ^ 1]) + data[1:]
    )

    go(kind, tmp_path)

    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", [FileStage, Store])
def test_a_result_that_was_only_touched_or_copied_is_up_to_date(kind, tmp_path, caplog):
    caplog.set_level("INFO")
    go(kind, tmp_path)
    caplog.clear()
    for file in tmp_path.glob("n*.*"):
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data)

    go(kind, tmp_path)

    assert "up to date" in caplog.text


def test_borrowed_items_count_as_kept(tmp_path, caplog):
    caplog.set_level("INFO")
    go(Store, tmp_path, count=11)
    go(Store, tmp_path)

    assert "(1 new, 11 kept)" in caplog.text


def test_a_link_onto_the_same_file_leaves_no_temporary_name(tmp_path):
    (tmp_path / "a").write_text("x")
    for _ in range(2):
        link_or_copy(tmp_path / "a", tmp_path / "b")

    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_temporaries_of_parts_belong_to_the_parts(tmp_path):
    part = tmp_path / "_parts/000-of-002/.tmp-1"
    part.parent.mkdir(parents=True)
    part.touch()
    (tmp_path / ".tmp-2").touch()

    remove_temporaries(tmp_path)

    assert [p.name for p in tmp_path.rglob(".tmp-*")] == [".tmp-1"]


@pytest.mark.parametrize("name", ["_state/lock", "_state/log.txt", "numbers.txt.partial", "_new"])
def test_links_that_lie_ready_are_not_followed(name, tmp_path):
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    (out / "_state").mkdir(parents=True)
    (out / name).symlink_to(victim)

    with pytest.raises(DataError, match="a link"):
        go(Store, out)

    assert victim.read_text() == "precious"


def test_a_failure_is_in_quarantine_after_a_kill_at_any_moment(tmp_path):
    go(FileStage, tmp_path, missing=["n001"])
    (tmp_path / "_state/failed/n001.json").unlink()
    (tmp_path / "_state/manifest.json").unlink()

    go(FileStage, tmp_path, missing=["n001"])

    assert (tmp_path / "_state/failed/n001.json").exists()


def test_touching_an_input_changes_nothing_and_writing_to_it_does(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    before = content_of_input(folder), content_of_input(folder / "a.txt")
    os.utime(folder / "a.txt", (1, 1))
    touched = content_of_input(folder), content_of_input(folder / "a.txt")
    (folder / "a.txt").write_text("two")

    assert touched == before
    assert content_of_input(folder) != before[0]


def test_a_result_that_was_made_but_not_written_down_goes_with_its_input(tmp_path):
    class Killed(WatchedFiles):
        __module__ = WatchedFiles.__module__

        def process(self, item):
            outcome = super().process(item)
            if item.id == "n004":
                raise KeyboardInterrupt  # its file is there, its journal line is not
            return outcome

    Killed.runs = WatchedFiles.runs
    with pytest.raises(KeyboardInterrupt):
        go(Killed, tmp_path)
    (tmp_path / "n004.txt.note").write_text("not ours to remove")
    go(WatchedFiles, tmp_path, count=4)

    made = [f"n{n:03d}.json" for n in range(4)]
    assert sorted(p.name for p in tmp_path.glob("n*")) == [*made, "n004.txt.note"]
