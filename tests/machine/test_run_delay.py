# SPDX-License-Identifier: BSD-3-Clause
"""The time for which a thread waits for a processor."""

import os
import threading
import time
from pathlib import Path

import pytest

from teamster.machine.run_delay import RunDelay


def test_it_grows_when_threads_share_a_processor() -> None:
    """Two threads that hash on one processor each wait half of the time."""
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("this kernel keeps no account")
    import hashlib

    before, data, over = os.sched_getaffinity(0), bytes(1_000_000), threading.Event()

    def busy() -> None:
        os.sched_setaffinity(0, {min(before)})
        while not over.is_set():
            hashlib.sha256(data).digest()

    other = threading.Thread(target=busy)
    other.start()
    delay = RunDelay()
    try:
        os.sched_setaffinity(0, {min(before)})
        began, deadline = delay.read_ns(), time.monotonic() + 10
        while delay.read_ns() - began < 50_000_000 and time.monotonic() < deadline:
            hashlib.sha256(data).digest()
        assert delay.read_ns() - began >= 50_000_000
    finally:
        over.set()
        other.join()
        os.sched_setaffinity(0, before)
        delay.close()
    assert delay.read_ns() == 0


def test_without_an_account_it_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError("no /proc")

    monkeypatch.setattr(os, "open", refuse)
    assert RunDelay().read_ns() == 0
