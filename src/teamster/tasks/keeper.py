# SPDX-License-Identifier: BSD-3-Clause
"""The keeper of processes that `ts.spawn` has started: one thread reads what all of them tell.

::

    spawn --> Children.start  reader thread --> Children.wait --> ChildCall.take(message),
    send  --> Children.put                                        ChildCall.end(death), and threads
                                                                  that wait for one are woken

The thread is there while there are processes, and not before or after.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from teamster import lifetime
from teamster.machine.own_threads import own_thread
from teamster.spine.transport.parcel import Parcel
from teamster.spine.workers.death import Death
from teamster.spine.workers.process.child import Child
from teamster.spine.workers.process.children import Children
from teamster.spine.workers.process.forkserver import the_fork_server
from teamster.spine.workers.process.start import ChildSetup, Entry
from teamster.tasks.child_call import ChildCall
from teamster.tasks.monitor import registry
from teamster.tasks.monitor.long_calls import Patience, retire_if_idle

_numbers = itertools.count()
_END_S = 1.0  # how long what is told to end at the end of the program may take before it is killed


class Keeper:
    """The children of this program that are no workers.

    Attributes:
        changed: guards all of it and every process, and tells the threads that wait that something
            has come.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._children = Children(
            ChildSetup("forkserver", None), on_broken_output=self._note_broken
        )
        self._patience = Patience()
        self._calls: dict[Child, ChildCall] = {}
        # The program's output did not take what a child had printed
        self._broken: BaseException | None = None
        self._orders: deque[tuple[Child, int]] = deque()  # signals to be sent; 0: kill
        self._is_busy = False  # the thread that has the lock is in the middle of a send
        self.over = False

    def start(self, title: str, entry: Entry, told: tuple[Any, ...], label: str = "") -> ChildCall:
        """Start a child and see to it; the lock is held."""
        number = next(_numbers)
        child: Child | None = None
        try:
            with self._alone():
                label = label or f"spawn {number}: {title}"
                child = self._children.start(number, label, entry, told)
            call = ChildCall(self, child, title)
            if not self._calls:
                own_thread(
                    threading.Thread(target=self._read, name="teamster-processes", daemon=True)
                ).start()
            self._calls[child] = call
        except BaseException:  # Ctrl-C, too
            if child is not None:
                self._children.kill(child)
            if not self._calls:
                self._close()
            raise
        self._children.wake()  # one that could not be started is dead already
        return call

    def snapshot(self) -> list[dict[str, Any]]:
        """What those do that have not ended."""
        with self.changed:
            return [call.snapshot() for call in self._calls.values()]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Use the children in here.

        A signal handler that comes in between and wants the same would wait for its own thread.

        Raises:
            RuntimeError: this is such a handler.
        """
        if self._is_busy:
            raise RuntimeError(
                "a signal handler uses a process in the middle of another use; have it note that, "
                "and do it later"
            )
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False

    def put(self, child: Child, message: tuple[Any, ...], parcel: Parcel | None = None) -> bool:
        """Send a message, with a parcel behind it; whether all of it is on its way."""
        with self._alone():
            return self._children.put(
                child, message if parcel is None else (*message, child.channel.stow(parcel))
            )

    def pause(self, child: Child, on: bool) -> None:
        """Read nothing of it while that is `on`."""
        with self._alone():
            self._children.pause(child, on)

    def signal(self, child: Child, number: int) -> None:
        """Send it a signal; without a lock, as signal handlers want it."""
        self._orders.append((child, number))
        self._children.wake()

    def kill(self, child: Child) -> None:
        """SIGKILL to it, and what it started; without a lock."""
        self._orders.append((child, 0))
        self._children.wake()

    def _carry_out(self) -> None:
        while self._orders:
            child, number = self._orders.popleft()
            if number:
                self._children.signal(child, number)
            else:
                self._children.kill(child)

    def raise_if_broken(self) -> None:
        """Raise what the program's own stream has raised, once.

        That is so when the reader of a pipe is gone, or the disk is full.
        """
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken

    def _note_broken(self, error: Exception) -> None:
        with self.changed:
            self._broken = error
            self.changed.notify_all()

    def _read(self) -> None:
        try:
            while self._read_once():
                pass
        except BaseException as error:  # a mistake of ours: no thread may wait for ever
            with self.changed:
                for call in self._calls.values():
                    call.give_up(error)
                self._close()
            raise

    def _read_once(self) -> bool:
        self._carry_out()
        told = self._children.wait(self._patience.left_s())
        self._patience.ends()
        with self.changed:
            for child, what in told:
                self._hand_on(child, what)
            for child in self._calls:
                if child.channel.owes_segments:
                    self._children.put(child, ("home",))
            if not self._calls:
                self._close()
            self.changed.notify_all()
            return not self.over

    def _hand_on(self, child: Child, what: tuple[Any, ...] | Death) -> None:
        call = self._calls.get(child)
        if isinstance(what, Death):
            if call is not None:  # else Ctrl-C struck while it was started
                call.end(what)
                del self._calls[child]
            self._children.release(child)
        elif call is not None:
            call.take(what)

    def _close(self) -> None:
        self.over = True
        self._calls.clear()
        self._children.close(0.0)
        retire_if_idle()
        self.changed.notify_all()

    def finish(self) -> None:
        """The program ends: wait for its processes, as `multiprocessing` does.

        It does not wait for daemons, and for none after an error.
        """
        failed = getattr(sys, "last_type", None) is not None and not hasattr(sys, "ps1")
        with self.changed:
            for child, call in self._calls.items():
                call.drain(True)
                self._children.shut(child)  # no thread is left that could send anything
            try:
                while not failed and any(not call.may_be_ended() for call in self._calls.values()):
                    self.changed.wait()
            finally:  # Ctrl-C, too
                for child, call in list(self._calls.items()):
                    call.ask_to_end("The program has ended")
                    self._children.kill(child)
                self.changed.wait_for(lambda: self.over or not self._calls, _END_S)

    def disown(self) -> None:
        """In a forked copy of the program: the processes are the original's."""
        self.changed = threading.Condition(threading.RLock())
        self.over = True
        for call in self._calls.values():
            call.disown()


_keeper: Keeper | None = None
_lock = threading.RLock()


def the_keeper() -> Keeper:
    """The keeper of this program, a new one where the last has ended.

    To be used under `keeper.changed`, if it is not `over`.
    """
    global _keeper
    with _lock:
        if _keeper is None or _keeper.over:
            lifetime.in_forked_copy(_forget)
            the_fork_server()  # its end is registered before, so it comes after
            lifetime.end_at_exit(_finish)
            registry.spawned = spawned_processes
            _keeper = Keeper()
        return _keeper


def spawned_processes() -> list[dict[str, Any]]:
    """What the processes do that have not ended."""
    keeper = _keeper
    return [] if keeper is None or keeper.over else keeper.snapshot()


def _finish() -> None:
    keeper = _keeper
    if keeper is not None and not keeper.over:
        keeper.finish()


def _forget() -> None:
    global _keeper, _lock
    if _keeper is not None:
        _keeper.disown()
    _keeper, _lock = None, threading.RLock()
