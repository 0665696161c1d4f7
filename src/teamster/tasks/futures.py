# SPDX-License-Identifier: BSD-3-Clause
"""`submit`: single calls as futures.

::

    submit --> CallFuture --> the team's backlog --> many calls in one message --> worker
                  ^                                                                  |
                  +--- settle: result, callbacks, without any lock <-----------------+

A thread that waits for a future leads the team meanwhile: no other stands between a worker and
`result()`. Where none waits (asyncio, callbacks, `concurrent.futures.wait`), a daemon thread
notices within half a millisecond, and leads until one does. Threads of workers bring their answers
themselves; the daemon thread fetches what one of them holds back while the next call takes long.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING, RUNNING
from time import perf_counter, sleep
from typing import Any

from teamster.errors import PoolClosed, UsageError, WorkerStartError
from teamster.kinds import KINDS
from teamster.machine.own_threads import own_thread
from teamster.spine.trace.report import WallClock
from teamster.spine.workers.calls import ANY_THREAD, Backlog
from teamster.spine.workers.exceptions import wrap_control_flow
from teamster.spine.workers.job import CallOptions
from teamster.spine.workers.team import Team
from teamster.tasks.definitions import Definitions, SubmittedFunction, travels_as_code
from teamster.tasks.gate import Gate
from teamster.tasks.monitor.long_calls import Patience
from teamster.tasks.monitor.registry import finish_calls_at_exit

_NO_THREAD_YET = -1  # reads, and callbacks wait for the reader
_GRACE_S = 0.0005  # how long an answer may find no thread that reads it
_LOOKS_S = 0.02  # after so long beside one leader, the reader waits to be told that it has left


class BrokenPool(WorkerStartError, BrokenExecutor):
    """`WorkerStartError`, as the futures of a pool raise it: a broken executor's error, too.

    Example:
        >>> issubclass(BrokenPool, WorkerStartError)
        True
    """


_ON_DEMAND = ("_condition", "_waiters", "_done_callbacks")


class CallFuture(Future[Any]):
    """A future whose waiter does the reading.

    A standard future makes a condition and two lists, of which most futures use none: half of what
    a call costs, and of the memory. Here they are made when they are asked for, and what the lock
    of the condition guarded is decided in one step of C: the thread that takes `item` out of the
    future has it run or cancelled; and what is first set as `_gate`, its end or a condition,
    decides whether a thread waits for that end.
    """

    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _definition: SubmittedFunction | None = None

    def __init__(self, submitter: Submitter, pool: object, item: Any) -> None:
        self.item = item
        self._submitter = submitter
        self._pool: object = pool  # a pool without a name must not end under its futures

    def __getattr__(self, name: str) -> Any:
        if name not in _ON_DEMAND:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        own, made = self.__dict__, Gate()
        own.setdefault("_waiters", [])
        own.setdefault("_done_callbacks", [])
        gate = own.setdefault("_gate", made)
        if gate is _SEALED:
            while self._state in (PENDING, RUNNING):
                sleep(0)  # the thread that sealed it sets the state with its next step
            gate = made
        own.setdefault("_condition", gate)
        return own[name]

    def claim(self) -> Any:
        """What is to run, once; None when it is not to run any more."""
        item = self.__dict__.pop("item", None)
        if item is not None and self._state == PENDING:
            self._state = RUNNING
        return item

    def cancel(self) -> bool:
        """Take the call back, if it has not started, and tell those that wait for it."""
        if self.__dict__.pop("item", None) is None:
            return self.cancelled()
        self.let_go()
        self._submitter.team.calls.close()
        self._finish(CANCELLED_AND_NOTIFIED, "add_cancelled")
        self.call_back()
        return True

    def settle(self, value: Any, error: BaseException | None) -> bool:
        """Take what the call came to, and tell those that wait; whether callbacks are to be run."""
        self.let_go()
        if self._state not in (PENDING, RUNNING):  # cancelled, or set by the program itself
            return False
        if error is None:
            self._result = value
        else:
            self._exception = BrokenPool(*error.args) if type(error) is WorkerStartError else error
        self._finish(FINISHED, "add_result" if error is None else "add_exception")
        return bool(self.__dict__.get("_done_callbacks"))

    def call_back(self) -> None:
        """Run the callbacks; one that exits a thread of ours (``sys.exit``) fails as any other."""
        if not self.__dict__.get("_done_callbacks"):
            return
        try:
            self._invoke_callbacks()
        except BaseException:
            if threading.current_thread() is threading.main_thread():
                raise
            LOGGER.exception("exception calling callback for %r", self)

    def _finish(self, state: str, how: str) -> None:
        """Set the last state, and wake those that wait."""
        gate = self.__dict__.setdefault("_gate", _SEALED)
        if gate is _SEALED:
            self._state = state
            return
        with gate:
            self._state = state
            for waiter in self._waiters:
                getattr(waiter, how)(self)
            gate.notify_all()

    def let_go(self) -> None:
        """It is over: the pool may end, and what the call carried may go."""
        self._pool = None
        self.__dict__.pop("item", None)
        if self._definition is not None:
            definition, self._definition = self._definition, None
            self._submitter.definitions.release(definition)

    def done(self) -> bool:
        """Whether it has a result, an exception, or was cancelled."""
        return self._state not in (PENDING, RUNNING)

    def result(self, timeout: float | None = None) -> Any:
        """The result, as of any future; waits at most `timeout` seconds."""
        if self._state in (PENDING, RUNNING):
            timeout = self._submitter.help(self, timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result
        try:
            return super().result(timeout)
        finally:
            del self  # of an error, whose traceback would lead back to it

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception, as of any future; waits at most `timeout` seconds."""
        if self._state in (PENDING, RUNNING):
            timeout = self._submitter.help(self, timeout)
        return super().exception(timeout)


_SEALED = object()


class Submitter:
    """Takes single calls for a team."""

    def __init__(self, team: Team, terms: CallOptions, clock: WallClock) -> None:
        self.team = team
        self.definitions = Definitions(team, terms)
        self._by_pickle = KINDS[team.backend.kind].by_pickle
        self._patience = Patience()
        self._reader: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closing = False
        self._asleep = False
        self._waken = threading.Event()
        self._clock = clock
        self._at_last: Callable[[], object] | None = None  # when no call is open any more
        team.calls.on_change = self._count
        self._reads = team.backend.pulls and team.backend.kind != "serial"
        if self._reads:
            team.calls.reader = _NO_THREAD_YET
        if team.backend.kind != "serial":
            team.calls.wake_reader = self._wake_reader
        finish_calls_at_exit()

    def _count(self, begin: bool) -> None:
        """The first call is open, or the last one is settled."""
        if begin:
            self._clock.__enter__()
        else:
            self._clock.__exit__()
            at_last, self._at_last = self._at_last, None
            if at_last is not None:
                at_last()

    def submit(
        self,
        pool: object,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        chunksize: int | None = None,
    ) -> Future[Any]:
        """Queue one call; `pool` lives as long as its future."""
        if self._patience.running:
            self._patience.ends()
        context, definition = contextvars.copy_context(), None
        item: Any
        if self._by_pickle and travels_as_code(function):
            definition = self.definitions.find(function, context, chunksize)  # type: ignore[arg-type]
            job, item = definition.job, (None, arguments, keywords)
        else:
            job = self.definitions.shared_job(context, chunksize)
            item = (function, arguments, keywords)
        future = CallFuture(self, pool, item)
        if definition is not None:
            future._definition = definition
        try:
            queued = self.team.call(job, future)
        except PoolClosed:
            future.let_go()
            raise
        if not queued:  # the calls before it have failed while it was made
            future.let_go()
            return self.submit(pool, function, arguments, keywords, chunksize)
        if self.team.backend.pulls or self.team.dispatcher.queue:
            # A thread that has one call at a time brings its answer itself
            self._see_to_it(future)
        return future

    def _see_to_it(self, future: CallFuture) -> None:
        """Have a thread read the answer."""
        if self.team.backend.kind == "serial":
            if self.team.backend.is_inside():  # a task has submitted it, and may wait for it
                self._run_here(future)
            elif not self.team.handled_here:
                self.drain()
        elif self._reader is None:
            self._start_reader()
        elif self._asleep:
            self._waken.set()

    def _start_reader(self) -> None:
        with self._starting:
            if self._reader is not None:  # another thread was faster
                return
            reader = own_thread(
                threading.Thread(target=self._read, name="teamster-reader", daemon=True)
            )
            try:
                reader.start()
            except RuntimeError:
                # The interpreter ends, and since Python 3.12 starts none: those that wait read
                self.team.calls.reader = ANY_THREAD
                return
            self._reader = reader

    def _run_here(self, future: CallFuture) -> None:
        """Run a call of a serial task's in the middle of that task."""
        item = future.claim()
        if item is None:
            return
        function, arguments, keywords = item
        value, error = None, None
        try:
            value = function(*arguments, **keywords)
        except BaseException as raised:
            error = wrap_control_flow(raised)
            if isinstance(raised, KeyboardInterrupt):  # the user's own
                raise
        finally:
            self.team.dispatcher.outcomes.append((future, value, error))
            self.team.calls.settle()

    # --- the reader -------------------------------------------------------------------------------

    def _read(self) -> None:
        """Lead whenever calls are open and no other thread does."""
        if self._reads:
            self.team.calls.reader = threading.get_ident()
        try:
            while not self._closing:
                self._await_calls()
                if self._await_lead():
                    self.team.run_until(lambda: self._closing, yielding=True)
        except PoolClosed:
            return
        except BaseException as error:
            self.team.fail(error)  # calls must not wait for a thread that is no more

    def _wake_reader(self) -> None:
        """Callbacks wait for it."""
        self._waken.set()
        self.team.wake_reader()

    def _await_calls(self) -> None:
        self._waken.clear()
        self._asleep = True
        if not self.team.calls.count and not self._closing:
            self._waken.wait()
        self._asleep = False

    def _await_lead(self) -> bool:
        """Whether calls are open that no thread reads for, after a moment of grace.

        A thread that waits for one future mostly waits for the next.
        """
        until = perf_counter() + _LOOKS_S
        while True:
            self._waken.clear()  # before the look whether this ends, which sets it
            if self._closing or not self.team.calls.count:
                return False
            self.team.calls.settle()  # callbacks that others have left
            sleep(_GRACE_S)
            if self.team.leaderless:
                return bool(self.team.calls.count) and not self._closing
            patient = perf_counter() > until and not self.team.calls.has_left
            if patient and not self.team.ask_for_lead(self._waken.set):
                self._waken.wait()

    def help(self, future: CallFuture, seconds: float | None) -> float | None:
        """Lead until `future` is done, where a leader is of use; returns seconds still to wait."""
        backend = self.team.backend
        if self.team.dispatcher.count == 1 and backend.is_inside():
            raise UsageError(
                "the only worker waits for a call that it would have to run itself; open another "
                "pool, or have two workers"
            )
        if not backend.pulls or self._closing or backend.is_inside():
            return seconds
        try:
            left = self._patience.left_s()
            if left is not None and (seconds is None or left < seconds):
                self.team.run_until(future.done, seconds=left)
                self._patience.ends()
                if future.done():
                    return seconds
                seconds = None if seconds is None else seconds - left
            self.team.run_until(future.done, seconds=seconds)
        except KeyboardInterrupt as interrupt:
            raise interrupt.with_traceback(None) from None  # where it struck is of no interest
        except PoolClosed:  # which has settled the future
            return seconds
        return None if seconds is None else 0.0

    # --- the end ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Wait until every future is done, but for one with a callback that asks for that."""
        own = self.team.calls.settled_here
        self.team.run_until(lambda: self.team.calls.count <= own)

    def do_at_last(self, what: Callable[[], object]) -> bool:
        """Whether calls are open; then `what` is done after the last of them."""
        with self.team.lock:
            self._at_last = what if self.team.calls.count else None
            return self._at_last is not None

    def cancel_all(self) -> None:
        """Cancel what has not started."""
        with self.team.lock:
            waiting = [
                call
                for entry in self.team.dispatcher.queue
                if isinstance(entry, Backlog)
                for call in entry.calls
            ]
        for call in reversed(waiting):  # so that none starts in the place of one that was cancelled
            call.cancel()

    def close(self) -> None:
        """Let the reader end."""
        self._closing = True
        self.team.calls.reader = ANY_THREAD
        self._waken.set()
        with self.team.lock:
            self.team.nudge()

    def join(self) -> None:
        """Wait for the reader to end, unless the reader waits for this very callback."""
        reader = self._reader
        if reader in (None, threading.current_thread()) or self.team.handled_here:
            return
        assert reader is not None
        reader.join()
        self._reader = None
