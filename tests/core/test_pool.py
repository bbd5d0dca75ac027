"""The parent survives the death of any worker, and says what keeps workers from starting."""

import time

import psutil
import pytest

from pipeline.core.runner import Settings, run
from pipeline.core.work.pool import Pool
from pipeline.errors import SystemRefused
from tests.core.toy import FileStage, Options


def first_child(end: float) -> psutil.Process:
    """The first worker process that there is."""
    while time.monotonic() < end:
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                return child
        time.sleep(0.005)
    raise AssertionError("no worker was started")


def test_a_worker_that_is_killed_before_it_has_an_item_costs_nothing(tmp_path):
    stage = FileStage(Options(count=3), {}, tmp_path)
    pool = Pool(stage, 1, 0)
    for number, item in enumerate(stage.items()):
        pool.put(number, item)

    first_child(time.monotonic() + 60).kill()
    answers, end = {}, time.monotonic() + 60
    while len(answers) < 3 and time.monotonic() < end:
        answers |= dict(pool.results(0.2))
    pool.stop()

    assert [answers[n].error for n in range(3)] == [None, None, None]


def test_a_memory_limit_below_what_a_worker_begins_with_is_refused_with_a_number(tmp_path):
    with pytest.raises(SystemRefused, match="--memory 0.0488 is too low") as caught:
        run(FileStage(Options(), {}, tmp_path), "toy", Settings(1, memory_bytes=50 << 20))

    assert "--memory 0 for no limit" in caught.value.fix
