# SPDX-License-Identifier: BSD-3-Clause
"""How large a batch is, from what is known."""

from typing import Any

from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.handle import BatchDone, WorkerHandle
from teamster.spine.workers.job import PATIENT_NS, TARGET_NS, CallOptions, Job


def ran(items: int, run_ns: int) -> BatchDone:
    return BatchDone(WorkerHandle(0), 0, items, run_ns)


def job(chunksize: int | None = None, *, low_latency: bool = True) -> Job:
    nothing: Any = lambda *_: None  # noqa: E731
    return Job(
        FunctionSpec(abs, low_latency=low_latency),
        CallOptions(0, None, chunksize),
        on_values=nothing,
        on_error=nothing,
        on_failure=nothing,
    )


def test_an_explicit_chunk_is_obeyed() -> None:
    fixed = job(chunksize=7)
    fixed.observe(ran(7, 10**9))
    assert fixed.batch_items(remaining=1_000, workers=2) == 7


def test_the_first_batch_is_one_item() -> None:
    assert job().batch_items(remaining=1_000_000, workers=2) == 1


def test_batches_grow_to_fill_the_target_and_not_faster_than_known() -> None:
    tiny = job()
    tiny.observe(ran(1, 1_000))
    sizes = []
    for _ in range(8):
        sizes.append(tiny.batch_items(remaining=None, workers=2))
        tiny.observe(ran(sizes[-1], sizes[-1] * 1_000))
    assert sizes[:3] == [8, 64, 512]
    assert sizes[-1] == TARGET_NS // 1_000


def test_when_nobody_waits_for_single_results_there_are_fewer_messages() -> None:
    patient = job(low_latency=False)
    for _ in range(5):
        patient.observe(ran(1_000, 1_000 * 20_000))
    assert patient.batch_items(remaining=None, workers=2) == PATIENT_NS // 20_000
    assert PATIENT_NS > TARGET_NS


def test_long_items_go_one_by_one() -> None:
    slow = job()
    slow.observe(ran(1, 50_000_000))
    assert slow.batch_items(remaining=1_000, workers=2) == 1


def test_the_tail_is_shared_out() -> None:
    steady = job()
    for _ in range(5):
        steady.observe(ran(40, 40 * 100_000))
    assert steady.batch_items(remaining=None, workers=2) == 40
    assert steady.batch_items(remaining=40, workers=2) == 10
    assert steady.batch_items(remaining=3, workers=2) == 2  # never less than is worth a message


def test_large_items_are_not_gathered() -> None:
    heavy = job()
    heavy.observe(ran(64, 64 * 1_000))
    heavy.item_bytes = 512 * 1024
    assert heavy.batch_items(remaining=None, workers=2) == 2
