# SPDX-License-Identifier: BSD-3-Clause
"""The backend of interpreter workers.

Each is a thread that enters an interpreter with a lock of its own (Python 3.14, PEP 734).

::

    thread of the worker --> interpreter.call(run_batch, pickles) --> pickles of results
                             in interpreter/worker.py

Python code runs in parallel as in processes; data goes by pickle, and a crash ends the program as
in threads. Modules that do not support several interpreters (NumPy among them) fail to import in
there, so nothing chooses this kind but the user.
"""

from __future__ import annotations

import contextvars
import pickle
import sys
from time import perf_counter_ns

from teamster.errors import RemoteError, UsageError
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.spans import current_ring
from teamster.spine.transport.parcel import Parcel
from teamster.spine.transport.pickled import pack_whole
from teamster.spine.workers.backend import Staff
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.context_vars import carry
from teamster.spine.workers.exceptions import rebuild, transfer_error
from teamster.spine.workers.handle import BatchResults
from teamster.spine.workers.interpreter import worker as inside
from teamster.spine.workers.runner import title_of
from teamster.spine.workers.scoreboard import COMMITTED, STARTED, WIDTH
from teamster.spine.workers.threads import Place, ReportSink, ThreadBackend, ThreadHandle
from teamster.spine.workers.worker_info import WorkerInfo


def has_interpreters() -> bool:
    """Whether this Python can run several interpreters.

    Example:
        >>> isinstance(has_interpreters(), bool)
        True
    """
    from importlib.util import find_spec

    return (
        "concurrent.interpreters" in sys.modules or find_spec("concurrent.interpreters") is not None
    )


class InterpreterBackend(ThreadBackend):
    """Interpreter workers of one pool."""

    kind = "interpreter"

    def __init__(self, staff: Staff) -> None:
        if not has_interpreters():
            version = ".".join(map(str, sys.version_info[:2]))
            raise UsageError(
                f"backend='interpreter' needs Python 3.14 or newer, and this is {version}; use "
                "'process' instead"
            )
        super().__init__(Staff(staff.count, native_threads=staff.native_threads))
        self._initializer = pack_whole((staff.initializer, staff.initargs))

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Pickle the function, and what of the context can travel."""
        try:
            spec.parcel = Parcel(pack_whole(spec.function), [])
        except Exception as reason:
            raise transfer_error(
                f"the function {getattr(spec.function, '__qualname__', spec.function)!r}", reason
            ) from reason
        spec.context = carry(context) if len(context) else []

    def _place(self, info: WorkerInfo) -> Place:
        return _InInterpreter(info, self._initializer)


class _InInterpreter:
    """An interpreter of its own.

    Raises:
        BaseException: what the initializer raised.
    """

    def __init__(self, info: WorkerInfo, initializer: bytes) -> None:
        from concurrent import interpreters  # type: ignore[attr-defined]

        self._interpreter = interpreters.create()
        self._known = -1
        self._interpreter.exec(
            f"import sys; sys.path[:] = {sys.path!r}; sys.argv[:] = {sys.argv!r}"
        )
        raised = self._interpreter.call(inside.begin, pickle.dumps(info), initializer)
        if raised:
            self.close()
            raise rebuild(pickle.loads(raised))

    def run(self, batch: Batch, worker: ThreadHandle, sink: ReportSink) -> int:
        """Run a batch; its results come back together."""
        spec: FunctionSpec = batch.job.spec
        words = worker.scoreboard.words
        words[WIDTH], words[STARTED] = batch.size, batch.number
        try:
            items = pack_whole(batch.items)
        except BaseException as reason:
            return self._refuse(batch, worker, sink, reason)
        began = perf_counter_ns()
        try:
            records = self._call(spec, items, batch)
        except BaseException as error:
            # What it names cannot be imported in there, or the items cannot be unpickled
            records = []
            for number in range(batch.number, batch.number + batch.size):
                sink.keep_failure(number, RemoteError(f"the interpreter could not run it: {error}"))
        if (ring := current_ring()) is not None:  # this thread's: nothing records in there
            ring.write(
                began,
                perf_counter_ns(),
                batch.first,
                batch.size,
                ring.name(title_of(spec.function)),
                COMPUTE,
            )
        for first, count, failed, data in records:
            if failed:
                sink.keep_failure(first, rebuild(pickle.loads(data)))
                continue
            try:
                sink.keep(first, pickle.loads(data))
            except BaseException as reason:
                for number in range(first, first + count):
                    sink.keep_failure(number, transfer_error("the result", reason))
        words[COMMITTED] = batch.number + batch.size
        return batch.size

    def _call(self, spec: FunctionSpec, items: bytes, batch: Batch) -> list[inside.Record]:
        if self._known != spec.identity:
            how = spec.style, spec.seed, spec.one_by_one, spec.context
            self._interpreter.call(inside.define, spec.parcel.data, pack_whole(how))
            self._known = spec.identity
        answer = self._interpreter.call(inside.run_batch, items, batch.number, max(batch.first, 0))
        records: list[inside.Record] = pickle.loads(answer)
        return records

    def _refuse(
        self, batch: Batch, worker: ThreadHandle, sink: ReportSink, reason: BaseException
    ) -> int:
        """Items that do not pickle are found one by one; the others run."""
        if batch.size == 1:
            sink.tell(
                [BatchResults(worker, batch.number, [None], transfer_error("the argument", reason))]
            )
            return 1
        for offset in range(batch.size):
            alone = Batch(batch.job, batch.first + offset, batch.items[offset : offset + 1])
            alone.number = batch.number + offset
            self.run(alone, worker, sink)
        return batch.size

    def close(self) -> None:
        """End the interpreter."""
        self._interpreter.close()
