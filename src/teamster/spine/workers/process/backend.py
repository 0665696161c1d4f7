# SPDX-License-Identifier: BSD-3-Clause
"""The backend of process workers.

It sends batches to children, and makes events of the team from what the children tell.

::

    send(batch) --> pack, stow --> Children.put --> worker        (worker.py runs it)
    wait()      <-- events     <-- Children.wait <-- results, "ready", deaths
"""

from __future__ import annotations

import contextvars
import time
from functools import partial

from teamster.spine.trace import spans
from teamster.spine.trace.ring import SERIALISE, TRANSFER, WAIT
from teamster.spine.transport.by_value.originals import begin_call
from teamster.spine.transport.pickled import pack
from teamster.spine.workers.backend import Backend, Staff
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.death import Death
from teamster.spine.workers.exceptions import transfer_error
from teamster.spine.workers.handle import Died, Event, WorkerHandle
from teamster.spine.workers.process.child import Child
from teamster.spine.workers.process.children import Children
from teamster.spine.workers.process.forkserver import the_fork_server
from teamster.spine.workers.process.functions import Functions
from teamster.spine.workers.process.handle import ProcessHandle
from teamster.spine.workers.process.start import ChildSetup, Entry
from teamster.spine.workers.worker_info import WorkerInfo

SERVE_BATCHES = "teamster.spine.workers.process.worker:serve_batches"


class ProcessBackend(Backend):
    """Process workers of one pool."""

    kind = "process"
    can_kill = True
    depth = 2
    deepest = 8

    def __init__(self, staff: Staff) -> None:
        """Raises what pickling the initializer raises."""
        super().__init__()
        if staff.start_method != "fork":
            the_fork_server(staff.preload).warm_up()  # while this process goes on importing
        self._entry = Entry(SERVE_BATCHES, (staff.initializer, staff.initargs), staff.start_method)
        self._workers: dict[Child, ProcessHandle] = {}
        self._children = Children(
            ChildSetup(staff.start_method, staff.native_threads, staff.preload),
            partial(_give_up, self._workers),
        )
        self._looked_for = -1  # the function with which the program was last looked at
        self._functions = Functions()

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Pickle the function, and what of the context can travel."""
        self._functions.prepare(spec, context)

    def start(self, index: int, count: int) -> ProcessHandle:
        """Start a child; it takes work from now on."""
        child = self._children.start(
            index, f"process {index}", self._entry, (WorkerInfo(index, self.kind, count),)
        )
        worker = self._workers[child] = ProcessHandle(index, child, self._children, self._workers)
        return worker

    def send(self, worker: WorkerHandle, batch: Batch) -> None:
        """Send a batch, and its function before it when the worker does not have it yet."""
        assert isinstance(worker, ProcessHandle)
        spec: FunctionSpec = batch.job.spec
        if not worker.outstanding and not worker.channel.is_whole():  # the first use after a pause
            self._children.start_afresh_if_needed(worker.child)
        ring, began = spans.current_ring(), time.perf_counter_ns()
        if batch.first < 0:  # submitted calls: each begins now
            begin_call()
        try:
            parcel = pack(batch.items)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:
            raise transfer_error("the argument", reason) from reason
        spans.note(ring, SERIALISE, "pickle arguments", began, parcel.nbytes)
        worker.channel.cork()
        if spec.identity not in worker.known:
            self._tell_function(worker, spec)
        batch.job.item_bytes = parcel.nbytes / batch.size
        began = time.perf_counter_ns()
        encoded = worker.channel.stow(parcel)
        spans.note(ring, TRANSFER, "copy arguments to shared memory", began, parcel.nbytes)
        message = (
            "batch",
            spec.identity,
            batch.number,
            batch.size,
            batch.first,
            batch.one_by_one,
            encoded,
        )
        self._children.put(worker.child, message)

    def _tell_function(self, worker: ProcessHandle, spec: FunctionSpec) -> None:
        """Tell a worker of a function, with the first items of a call.

        What of the program has changed since this worker was told goes before it.
        """
        if spec.identity != self._looked_for:
            self._looked_for = spec.identity
            self._children.look_again()
        self._children.tell_news(worker.child)
        self._children.put(worker.child, self._functions.definition(worker, spec))

    def flush(self) -> None:
        """Send the batches handed since the last time."""
        self._children.flush()

    def forget(self, spec: FunctionSpec) -> None:
        """No call will use this function again: workers drop it."""
        self._functions.forget(spec)
        for worker in list(self._workers.values()):
            if spec.identity in worker.known:
                worker.known.discard(spec.identity)
                self._children.put(worker.child, ("drop", spec.identity))

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Read whatever arrives first."""
        began = time.perf_counter_ns()
        told, events = self._children.wait(seconds, eager=eager), list[Event]()
        ring = spans.current_ring()
        spans.note(ring, WAIT, "wait for workers", began)
        began = time.perf_counter_ns()
        for child, what in told:
            if (worker := self._workers.get(child)) is None:  # released since
                continue
            events += (
                worker.translate(what) if not isinstance(what, Death) else self._bury(worker, what)
            )
        spans.note(ring, SERIALISE, "unpickle results", began)
        return events

    def _bury(self, worker: ProcessHandle, death: Death) -> list[Event]:
        """What it had finished, and that it died."""
        running = worker.running()
        return [
            *worker.salvage(),
            Died(worker, running and running[:2], death.error, death.by_memory()),
        ]

    def wake(self) -> None:
        """Make a `wait` in another thread return."""
        self._children.wake()

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes by pickle and by arena, both directions, so far."""
        pickled, arena = self._children.bytes_moved()
        return pickled, arena + self._functions.bytes_shared() + self._entry.nbytes

    def close(self, seconds: float) -> None:
        """End all workers.

        Those without work end by themselves within `seconds`; then everything is ended by force.
        """
        self._children.close(seconds)
        self._functions.close()
        self._entry.close()
        self._workers.clear()


def _give_up(workers: dict[Child, ProcessHandle], child: Child) -> None:
    """It is no death that any item is to blame for, and nothing more is sent there."""
    if (worker := workers.get(child)) is not None:
        worker.killed_for = worker.killed_for or (0, None)
