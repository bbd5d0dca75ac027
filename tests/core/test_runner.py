"""The engine: what is redone, what is kept, what a kill costs."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.runner import Settings, run
from pipeline.core.state import read_records, usable_records
from pipeline.errors import StateError, TooManyFailures
from tests.core.toy import FileStage, Options, StoreStage

ROOT = Path(__file__).resolve().parents[2]
LENIENT = Settings(jobs=2, max_failures=1.0)


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and "_state" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def go(kind, out: Path, settings: Settings = LENIENT, **options) -> dict:
    return run(kind(Options(**options), {}, out), "toy", settings)


def attempts(out: Path) -> dict[str, int]:
    """How often each item was journalled since the last finish."""
    return {r.id: r.attempts for r in read_records(out / "_state" / "items.jsonl")}


@pytest.fixture(params=[FileStage, StoreStage], ids=["files", "single"])
def kind(request):
    return request.param


def test_bytes_do_not_depend_on_the_number_of_workers(kind, tmp_path):
    for jobs in (1, 2, 4):
        go(kind, tmp_path / str(jobs), Settings(jobs=jobs))

    assert tree(tmp_path / "1") == tree(tmp_path / "2") == tree(tmp_path / "4") != {}


def test_second_run_does_nothing(kind, tmp_path):
    first = go(kind, tmp_path)

    assert go(kind, tmp_path) == first


def test_one_changed_item_is_redone_and_the_others_are_kept(kind, tmp_path):
    go(kind, tmp_path / "a")
    before = {r.id: r.seconds for r in usable_records(tmp_path / "a")}
    go(kind, tmp_path / "a", values={"n003": 77})

    after = {r.id: r.seconds for r in usable_records(tmp_path / "a")}
    go(kind, tmp_path / "b", values={"n003": 77})
    assert {i for i in before if after[i] != before[i]} <= {"n003"}
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_changed_option_redoes_everything(kind, tmp_path):
    go(kind, tmp_path / "a")
    go(kind, tmp_path / "a", power=3)
    go(kind, tmp_path / "b", power=3)

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_removed_and_added_items_leave_no_trace_of_the_old_set(kind, tmp_path):
    go(kind, tmp_path / "a", count=12)
    go(kind, tmp_path / "a", count=5)
    go(kind, tmp_path / "b", count=5)

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_failed_item_is_set_aside_and_redone_on_request(kind, tmp_path):
    mend = tmp_path / "mended"
    manifest = go(kind, tmp_path / "a", missing=["n004"], mend=str(mend))
    mend.touch()
    again = go(kind, tmp_path / "a", missing=["n004"], mend=str(mend))
    healed = go(
        kind, tmp_path / "a", Settings(2, retry_failed=True), missing=["n004"], mend=str(mend)
    )

    go(kind, tmp_path / "b")
    assert manifest["counts"]["failed"] == again["counts"]["failed"] == 1
    assert healed["counts"]["failed"] == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert not list((tmp_path / "a/_state/failed").iterdir())


def test_too_many_failures_reach_the_last_item_and_then_stop(kind, tmp_path):
    with pytest.raises(TooManyFailures, match="2 of 12 items failed"):
        go(kind, tmp_path, Settings(2), missing=["n000", "n001"])
    with pytest.raises(TooManyFailures):
        go(kind, tmp_path, Settings(2), missing=["n000", "n001"])

    assert len(usable_records(tmp_path)) == 10


def test_dying_and_hanging_workers_cost_only_their_items(kind, tmp_path):
    go(kind, tmp_path, crash=["n002"], hang=["n007"])

    failed = {r.id: r.reason for r in read_records(tmp_path / "_state/items.jsonl") if not r.usable}
    assert failed == {"n002": "worker_died", "n007": "timeout"}


def test_shards_merge_to_the_whole(kind, tmp_path):
    for index in range(3):
        go(kind, tmp_path / "a", Settings(1, shard=(index, 3)))
    parts = sorted((tmp_path / "a" / "_parts").iterdir())
    run(kind(Options(), {}, tmp_path / "a"), "toy", Settings(1), reuse_from=parts)

    go(kind, tmp_path / "b")
    merged = {k: v for k, v in tree(tmp_path / "a").items() if not k.startswith("_parts")}
    assert merged == tree(tmp_path / "b")


def test_second_run_on_the_same_folder_is_refused_and_names_the_holder(tmp_path):
    child = start(FileStage, tmp_path, seconds=0.5)
    wait_for(tmp_path / "_state/items.jsonl")

    with pytest.raises(StateError, match=f"process {child.pid}"):
        go(FileStage, tmp_path)
    child.kill()
    child.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signal_ends_soon_and_resumes_to_the_same_bytes(kind, number, tmp_path):
    child = start(kind, tmp_path / "a", seconds=0.2)
    wait_for(tmp_path / "a/_state/items.jsonl")
    child.send_signal(number)
    code = child.wait(timeout=8)

    go(kind, tmp_path / "a")
    go(kind, tmp_path / "b")
    assert code == 130
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_kills_at_random_moments_lose_nothing(kind, tmp_path):
    chance = random.Random(5)
    for _ in range(6):
        child = start(kind, tmp_path / "a", seconds=0.05, missing=["n006"])
        time.sleep(chance.uniform(0.2, 1.2))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    go(kind, tmp_path / "a", missing=["n006"])
    go(kind, tmp_path / "b", missing=["n006"])
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def start(kind, out: Path, **options) -> subprocess.Popen:
    code = (
        "import sys\nfrom pipeline.core.runner import Settings, run\nfrom pipeline.errors import"
        f" Interrupted\nfrom tests.core.toy import Options, {kind.__name__} as Kind\nif __name__ =="
        f" '__main__':\n    try:\n        run(Kind(Options(**{options!r}), {{}}, {str(out)!r}),"
        " 'toy', Settings(2, max_failures=1.0))\n    except Interrupted:\n        sys.exit(130)\n"
    )
    script = out.parent / f"run_{out.name}.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)


class PartsStage(FileStage):
    def left_out(self, manifest: dict) -> tuple[int, int]:
        return 3, 4


def test_an_item_that_lacks_too_many_of_its_parts_ends_the_run_like_failures(tmp_path):
    with pytest.raises(TooManyFailures, match="3 of 4 videos could not be read"):
        run(PartsStage(Options(count=1), {}, tmp_path), "toy", Settings(jobs=1))
    assert go(PartsStage, tmp_path, count=1)["counts"]["ok"] == 1
