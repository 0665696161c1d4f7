# SPDX-License-Identifier: BSD-3-Clause
"""Forked copies of a program that records: they leave its recording alone."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Any

import teamster as ts
from tests.spine.trace.items import busy, items_of


def test_a_forked_copy_of_the_program_records_nothing() -> None:
    with ts.record() as recording:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            from teamster.spine.trace.spans import current_ring

            os.write(write, b"1" if current_ring() is None else b"0")
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(read, 1) == b"1"
        os.close(read)
        os.close(write)
    assert recording.timeline.seconds > 0


def test_a_forked_child_that_records_does_not_take_the_parents_workers() -> None:
    with ts.Pool("process", workers=1) as pool:
        pool.map(busy, range(5))
        with ts.record() as recording:
            pool.map(busy, range(10))
            pid = os.fork()
            if pid == 0:
                with ts.record() as own:
                    pass
                os._exit(len(own.timeline.lanes))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            pool.map(busy, range(10))
    assert items_of(recording.timeline) == Counter([*range(10), *range(10)])


def test_a_forked_child_that_leaves_the_block_writes_nothing(tmp_path: Any) -> None:
    with ts.record(tmp_path / "run.json"):
        pid = os.fork()
        if pid == 0:
            try:
                with ts.record():
                    pass
                sys.exit(0)  # through the end of the block
            except SystemExit:
                pass
            finally:
                os._exit(len(list(tmp_path.iterdir())))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
