# SPDX-License-Identifier: BSD-3-Clause
"""Results to bytes in the worker, and back to events in the parent.

What does not travel costs its own item only.

::

    one value                            list of it
    values of one block, plain types     list of them: such a pickle always loads
    values of any other type             tuple of such pickles, each loaded by itself

The items were run and cannot be had again, so no result may hang on whether its neighbour's
``__setstate__`` raises.
"""

from __future__ import annotations

import pickle
from typing import Any

from teamster.spine.transport.parcel import Parcel
from teamster.spine.transport.pickled import pack_home
from teamster.spine.workers.exceptions import rebuild, transfer_error
from teamster.spine.workers.handle import BatchResults, Event, WorkerHandle
from teamster.spine.workers.runner import Sink

PLAIN = frozenset((int, float, complex, bool, str, bytes, type(None)))


def pack_results(values: list[Any]) -> Parcel:
    """Pickle the results of consecutive items.

    Raises:
        Exception: one of them does not pickle, or cannot share a parcel; alone, the others do.
    """
    if len(values) == 1:
        return (
            Parcel(pickle.dumps(values, 5), []) if type(values[0]) in PLAIN else pack_home(values)
        )
    if PLAIN.issuperset(map(type, values)):
        return Parcel(pickle.dumps(values, 5), [])
    parcels = [pack_home([value]) for value in values]
    if any(parcel.buffers or parcel.passed for parcel in parcels):
        raise BufferError(
            "buffers and descriptors travel outside of the pickle, those of one result at a time"
        )
    return Parcel(join_results([parcel.data for parcel in parcels]), [])


def keep_one_by_one(sink: Sink, first: int, values: list[Any], reason: BaseException) -> None:
    """Keep results that do not pickle together, because of `reason`, each alone.

    One that is alone becomes its item's failure.
    """
    if len(values) == 1:
        sink.keep_failure(
            first, transfer_error(f"the result of type {type(values[0]).__name__}", reason)
        )
        return
    for offset, value in enumerate(values):
        sink.keep(first + offset, [value])


def join_results(pickles: list[bytes]) -> bytes:
    """One pickle from those of single results."""
    return pickles[0] if len(pickles) == 1 else pickle.dumps(tuple(pickles), 5)


def unpack_results(
    worker: WorkerHandle,
    first: int,
    count: int,
    failed: bool,
    data: bytes | memoryview,
    buffers: list[memoryview],
) -> list[Event]:
    """The events for a record.

    It holds the results of `count` items from `first` on, or (`failed`) what one item raised.
    """
    if failed:
        return [BatchResults(worker, first, [None], rebuild(pickle.loads(data)))]
    try:
        values = pickle.loads(data, buffers=buffers)
    except KeyboardInterrupt:  # the user's Ctrl-C struck here
        raise
    except BaseException as reason:
        # A result with a __setstate__ that raises must not end the thread that reads for all
        return [
            BatchResults(worker, number, [None], transfer_error("the result", reason))
            for number in range(first, first + count)
        ]
    return (
        [BatchResults(worker, first, values)]
        if type(values) is list
        else _unpack_apart(worker, first, values)
    )


def _unpack_apart(worker: WorkerHandle, first: int, pickles: tuple[bytes, ...]) -> list[Event]:
    """The events for results that were pickled each by itself."""
    events: list[Event] = []
    values: list[Any] = []
    for offset, data in enumerate(pickles):
        try:
            values += pickle.loads(data)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:
            events += [BatchResults(worker, first + offset - len(values), values)] if values else []
            events.append(
                BatchResults(worker, first + offset, [None], transfer_error("the result", reason))
            )
            values = []
    return (
        [*events, BatchResults(worker, first + len(pickles) - len(values), values)]
        if values
        else events
    )
