# SPDX-License-Identifier: BSD-3-Clause
"""Results to bytes and back: a bad one costs itself."""

from typing import Any

import numpy
import pytest

from teamster.errors import TransferError
from teamster.spine.workers.backend import Staff
from teamster.spine.workers.batch import Batch
from teamster.spine.workers.dispatcher import Dispatcher
from teamster.spine.workers.encoding import join_results, pack_results, unpack_results
from teamster.spine.workers.handle import BatchResults, WorkerHandle
from teamster.spine.workers.job import CallOptions, Job
from teamster.spine.workers.reports import Reports
from teamster.spine.workers.serial import SerialBackend


class LoadsBadly:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def round_trip(values: list[Any]) -> list[Any]:
    parcel = pack_results(values)
    events = unpack_results(WorkerHandle(0), 5, len(values), False, parcel.data, parcel.buffers)
    found: list[Any] = []
    for event in events:
        assert isinstance(event, BatchResults)
        assert event.number == 5 + len(found)
        found += event.values if event.error is None else [event.error]
    return found


@pytest.mark.parametrize(
    "values",
    [[1], [[1, 2]], [1, "two", None, 4.0, b"5", 6j, True], [(1,), {"two": 2}, {3}], [1, [2], 3]],
)
def test_what_comes_is_what_went(values: list[Any]) -> None:
    assert round_trip(values) == values


@pytest.mark.parametrize("bad", [[0], [2], [0, 1], [1, 3], [0, 1, 2, 3]])
def test_one_that_does_not_load_costs_itself(bad: list[int]) -> None:
    found = round_trip([LoadsBadly() if number in bad else (number,) for number in range(4)])
    assert [number for number, value in enumerate(found) if isinstance(value, TransferError)] == bad
    assert [value for value in found if not isinstance(value, TransferError)] == [
        (n,) for n in range(4) if n not in bad
    ]


def test_results_with_buffers_go_alone() -> None:
    with pytest.raises(BufferError):
        pack_results([numpy.zeros(100_000), 1])


def test_joined_results_are_told_apart() -> None:
    pieces = [pack_results([value]).data for value in (1, (2, 3), None)]
    (event,) = unpack_results(WorkerHandle(0), 1, 3, False, join_results(pieces), [])
    assert isinstance(event, BatchResults)
    assert event.values == [1, (2, 3), None]
    assert join_results(pieces[:1]) is pieces[0]


def test_a_record_whose_front_was_rescued_brings_the_rest() -> None:
    """The log was read when it held two of five items; then all five came in one record."""
    taken: list[tuple[int, list[Any]]] = []
    nothing: Any = lambda *_: None  # noqa: E731
    job = Job(
        nothing,
        CallOptions(0, None, None),
        on_values=lambda first, values: taken.append((first, values)),
        on_error=nothing,
        on_failure=nothing,
    )
    worker = WorkerHandle(0)
    batch = Batch(job, 10, [0] * 5)
    batch.number = 1
    worker.outstanding.append(batch)
    reports = Reports(Dispatcher(SerialBackend(Staff(1)), 1))
    for first, values in (
        (1, ["a", "b"]),
        (4, ["d"]),
        (1, ["a", "b", "c", "d", "e"]),
        (1, ["a", "b", "c", "d", "e"]),
    ):
        reports.handle(BatchResults(worker, first, values))
    assert taken == [(10, ["a", "b"]), (12, ["c", "d", "e"])]
    assert batch.done == 5
