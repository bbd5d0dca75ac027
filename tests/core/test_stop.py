"""Signals: the grace period counts from their arrival, whatever the main thread is doing."""

import signal
import subprocess
import sys
import time

from tests.conftest import ROOT

BUSY = """
import hashlib
from pipeline.core import stop

stop.GRACE_SECONDS = 0.5
with stop.handling():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 400_000_000)  # a call that no signal interrupts
"""


def test_a_process_inside_one_long_call_ends_after_the_grace_period() -> None:
    child = subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE)
    child.stdout.readline()
    start = time.monotonic()
    child.send_signal(signal.SIGTERM)

    assert child.wait(timeout=60) == 130
    assert time.monotonic() - start < 20


def test_handling_leaves_nothing_behind() -> None:
    code = (
        "import signal, threading, time; from pipeline.core import stop\n"
        "with stop.handling(): pass\n"
        "time.sleep(0.1)\n"
        "print(threading.active_count(), signal.set_wakeup_fd(-1))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert found.stdout.split() == ["1", "-1"]
