"""The disk fails at the n-th call that writes: the command says so, and the next one mends it.

CI tries three places in two stages; `make torture` tries every call of every stage (at most 60).
"""

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.test_torture import CONFIG, STEPS, undisturbed  # noqa: F401
from tests.torture import faults
from tests.trees import tree

pytestmark = pytest.mark.slow
FULL = os.environ.get("TVRKIT_TORTURE") == "full"
CHEAP = ["compress", "vocab"]
FAULTS = {"EIO once": errno.EIO, "ENOSPC from here on": errno.ENOSPC}


def places(calls: int, wanted: int) -> list[int]:
    """Evenly spaced numbers of calls, 1 to `calls`."""
    return sorted({1 + (calls - 1) * n // max(1, wanted - 1) for n in range(min(calls, wanted))})


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS if FULL else CHEAP)
def test_a_disk_that_fails_costs_nothing_finished(
    step: str,
    fault: str,
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
    record_property,
) -> None:
    made = faults.library(tmp_path)
    command = ["run", "tiny", "--config", str(CONFIG), "--work", str(tmp_path), "--only", step]
    out = tmp_path / "tiny" / step
    out.parent.mkdir()
    for earlier in STEPS[: STEPS.index(step)]:
        shutil.copytree(undisturbed / earlier, tmp_path / "tiny" / earlier, copy_function=os.link)
    _, calls = faults.run(command, made, out)
    assert calls > 0
    tried = places(calls, 60 if FULL else 3)

    for place in tried:
        shutil.rmtree(out)
        last = place if FAULTS[fault] == errno.EIO else 1 << 40
        failed, _ = faults.run(command, made, out, first=place, last=last, number=FAULTS[fault])
        assert failed.returncode in (0, 6), (place, failed.stderr)
        assert "internal error" not in failed.stderr, (place, failed.stderr)
        assert "Traceback" not in failed.stderr, (place, failed.stderr)
        mended, _ = faults.run(command, made, out)
        assert mended.returncode == 0, (place, mended.stderr)
        assert tree(out) == tree(undisturbed / step), place
    record_property("torture", (step, fault, f"{len(tried)} of {len(tried)} calls of {calls}"))
