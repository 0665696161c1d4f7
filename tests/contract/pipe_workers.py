# SPDX-License-Identifier: BSD-3-Clause
"""A kind of worker that Teamster does not have: a Python at the other end of two pipes.

What a third party would write.

::

    parent: send --> ("batch", number, key, function, items, ...)  --> stdin of the worker
            wait <-- (number, failed, pickle) of each item, ("done", ...) <-- its stdout
"""

from __future__ import annotations

import contextvars
import os
import pickle
import select
import subprocess
import sys
import threading
from time import perf_counter_ns
from typing import IO, Any

from teamster.errors import WorkerDied
from teamster.machine.native_threads import environment
from teamster.spine.transport.parcel import Parcel
from teamster.spine.transport.pickled import pack_whole
from teamster.spine.workers.backend import Backend, Staff
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.context_vars import carry, unfold
from teamster.spine.workers.exceptions import describe, rebuild, transfer_error
from teamster.spine.workers.handle import (
    BatchDone,
    BatchResults,
    BatchUnreadable,
    Died,
    Event,
    Ready,
    WorkerHandle,
)
from teamster.spine.workers.process import streams
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.scoreboard import Scoreboard
from teamster.spine.workers.worker_info import WorkerInfo, limit_native_threads, set_process_worker


class PipeHandle(WorkerHandle):
    """A worker: what it has not reported yet counts as started, so that nothing is ever taken back
    from it.
    """

    __slots__ = ("known", "process", "reported")

    def __init__(self, index: int, process: subprocess.Popen[bytes]) -> None:
        super().__init__(index)
        self.process = process
        self.known: set[int] = set()  # functions that it has
        self.reported = 1  # the item that runs, or will run next

    def running(self) -> tuple[int, int, int] | None:
        return (self.reported, 1, 1) if self.outstanding else None

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def release(self) -> None:
        assert self.process.stdout is not None
        self.stop()
        self.process.stdout.close()
        self.process.wait()


class PipeBackend(Backend):
    """Pipe workers of one pool."""

    kind = "pipe"
    can_kill = True

    def __init__(self, staff: Staff) -> None:
        super().__init__()
        self._initializer = pack_whole((staff.initializer, staff.initargs))
        self._native_threads = staff.native_threads
        self._workers: dict[int, PipeHandle] = {}  # by descriptor of what they write
        self._wake_read, self._wake_write = os.pipe()
        self._changing = threading.Lock()

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        try:
            spec.parcel, spec.context = Parcel(pack_whole(spec.function), []), carry(context)
        except Exception as reason:
            raise transfer_error(f"the function {spec.function!r}", reason) from reason

    def start(self, index: int, count: int) -> PipeHandle:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.pipe_workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what is read ahead, `select` would not tell of
            start_new_session=True,
            env=os.environ | environment(self._native_threads),
        )
        assert process.stdout is not None
        worker = PipeHandle(index, process)
        told = (
            sys.path,
            WorkerInfo(index, self.kind, count),
            self._native_threads,
            streams.snapshot(),
            self._initializer,
        )
        self._tell(worker, told)
        with self._changing:
            self._workers[process.stdout.fileno()] = worker
        return worker

    def send(self, worker: WorkerHandle, batch: Batch) -> None:
        assert isinstance(worker, PipeHandle)
        spec: FunctionSpec = batch.job.spec
        try:
            items = pack_whole(batch.items)
        except Exception as reason:
            raise transfer_error("the argument", reason) from reason
        function = (
            None
            if spec.identity in worker.known
            else (spec.parcel.data, spec.style, spec.seed, spec.one_by_one, spec.context)
        )
        worker.known.add(spec.identity)
        self._tell(worker, (batch.number, spec.identity, function, items, batch.first))

    def _tell(self, worker: PipeHandle, message: Any) -> None:
        assert worker.process.stdin is not None
        try:
            write(worker.process.stdin, message)
        except (OSError, ValueError):
            return  # it died; the end of what it wrote tells

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        with self._changing:
            descriptors = [self._wake_read, *self._workers]
        ready, _, _ = select.select(descriptors, [], [], seconds)
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        return [
            event
            for descriptor in ready
            if descriptor in self._workers
            for event in self._read(self._workers[descriptor])
        ]

    def _read(self, worker: PipeHandle) -> list[Event]:
        assert worker.process.stdout is not None
        message = read(worker.process.stdout)
        if message is None:
            with self._changing:
                del self._workers[worker.process.stdout.fileno()]
            running = worker.running()
            return [
                Died(
                    worker,
                    running and running[:2],
                    lambda index, attempts: self._death(worker, index),
                )
            ]
        if message[0] in streams.KINDS:
            streams.deliver(message)
            return []
        kind, number, *rest = message
        if kind == "ready":
            return [Ready(worker, rebuild(rest[0]) if rest[0] else None)]
        if kind == "unreadable":
            return [BatchUnreadable(worker, number, rebuild(rest[0]))]
        if kind == "done":
            return [BatchDone(worker, number, *rest)]
        worker.reported = number + 1
        if kind == "failed":
            return [BatchResults(worker, number, [None], rebuild(rest[0]))]
        try:
            return [BatchResults(worker, number, [pickle.loads(rest[0])])]
        except Exception as reason:
            return [BatchResults(worker, number, [None], transfer_error("the result", reason))]

    def _death(self, worker: PipeHandle, index: int) -> WorkerDied:
        code = worker.process.wait()
        ended = f"worker {worker.index} died while it ran item {index}: exit code {code}"
        how: dict[str, Any] = {"exitcode": code} if code >= 0 else {"signal": -code}
        return WorkerDied(ended, index=index, worker=worker.index, **how)

    def wake(self) -> None:
        os.write(self._wake_write, b"\0")

    def close(self, seconds: float) -> None:
        for worker in list(self._workers.values()):
            worker.kill()
            worker.release()
        self._workers.clear()
        os.close(self._wake_read)
        os.close(self._wake_write)


# --- in the worker --------------------------------------------------------------------------------


class PipeSink:
    """Writes every result at once."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def keep(self, first: int, values: list[Any]) -> None:
        for number, value in enumerate(values, first):
            try:
                write(self._out, ("kept", number, pack_whole(value, home=True)))
            except Exception as reason:
                self.keep_failure(
                    number, transfer_error(f"the result of type {type(value).__name__}", reason)
                )

    def keep_failure(self, first: int, error: BaseException) -> None:
        write(self._out, ("failed", first, describe(error)))


def serve(source: IO[bytes], out: IO[bytes]) -> None:
    sys.path[:], info, native_threads, settings, initializer = read(source)
    set_process_worker(info)
    streams.redirect(lambda message: write(out, message), settings)
    try:
        limit_native_threads(native_threads)
        function, arguments = pickle.loads(initializer)
        if function is not None:
            function(*arguments)
        write(out, ("ready", 0, None))
    except BaseException as error:
        write(out, ("ready", 0, describe(error)))
    runners: dict[int, tuple[Runner, contextvars.Context]] = {}
    while (message := read(source)) is not None:
        number, key, definition, items, first = message
        try:
            if definition is not None:
                loaded = pickle.loads(definition[0])
                spec = FunctionSpec(loaded, *definition[1:3], one_by_one=True)
                runners[key] = (
                    Runner(spec, loaded, Scoreboard.private().words),
                    unfold(definition[4]),
                )
            values = pickle.loads(items)
        except BaseException as error:
            write(out, ("unreadable", number, describe(error)))
            continue
        began = perf_counter_ns()
        runner, context = runners[key]
        ran = context.run(runner.run, values, number, max(first, 0), PipeSink(out))
        write(out, ("done", number, ran, perf_counter_ns() - began))


def write(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message)
    left = memoryview(len(data).to_bytes(8, "little") + data)
    while left:
        left = left[stream.write(left) :]
    stream.flush()


def read(stream: IO[bytes]) -> Any:
    size = int.from_bytes(read_all(stream, 8), "little")
    return pickle.loads(read_all(stream, size)) if size else None


def read_all(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


if __name__ == "__main__":
    serve(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
