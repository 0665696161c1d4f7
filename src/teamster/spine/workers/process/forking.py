# SPDX-License-Identifier: BSD-3-Clause
"""Workers that are forked from the program itself.

Here is when that is refused, and how such a worker is begun, watched and ended. Threads of ours
(machine/own_threads.py) are no reason to refuse it: what they may hold in the moment of the fork is
not used in the copy, or made anew there (teamster/lifetime.py), as are the locks of `logging` and
of the standard streams. What remains is a lock of the user's own that a callback of a future holds
just then.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
import warnings
from typing import Any

from teamster.errors import StartMethodRefused
from teamster.machine.own_threads import threads_of_ours
from teamster.spine.transport.sockets import SILENTLY, pair
from teamster.spine.workers.process.offspring import KEPT_FROM, kill_group
from teamster.spine.workers.process.resource_tracker import descriptor_of_the_tracker


class Forked:
    """A worker that was forked from the program."""

    def __init__(self, pid: int, permit: socket.socket, witness: Witness | None) -> None:
        self.pid = pid
        self._permit = permit
        self._witness = witness

    def permit(self) -> None:
        """Let it begin.

        A parent that was killed between the fork and the message to the guard left a worker that
        no process knew of; now it waits.
        """
        with contextlib.suppress(OSError):  # it was killed
            self._permit.send(b"1", SILENTLY)
        self._permit.close()

    def kill(self) -> None:
        """SIGKILL to it and what it started."""
        kill_group(self.pid)

    def status(self) -> tuple[int | None, int] | None:
        """Exit status and peak memory in bytes; None while it lives.

        The status is None where other code has taken it from the kernel.
        """
        if self._witness is not None:
            return self._witness.status()
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            return None, 0
        return (status, usage.ru_maxrss * 1024) if pid else None

    def end(self) -> None:
        """Kill it, and leave no zombie."""
        self.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid if self._witness is None else self._witness.pid, 0)


class Witness:
    """A process between the program and its worker that sees how the worker ends.

    It stands there where the program's children are not left to the code that forked them: where
    SIGCHLD is ignored the kernel forgets their end at once, and a handler of the program's may
    collect all of them.
    """

    def __init__(self, pid: int, report: int) -> None:
        self.pid = pid
        self._report = report

    @staticmethod
    def is_needed() -> bool:
        """Whether other code than ours may learn of the end of our children."""
        return signal.getsignal(signal.SIGCHLD) not in (signal.SIG_DFL, None)

    def status(self) -> tuple[int | None, int] | None:
        """As that of a `Forked`."""
        try:
            told = os.read(self._report, 256)
        except BlockingIOError:
            return None
        os.close(self._report)
        ended: tuple[int | None, int] = pickle.loads(told) if told else (None, 0)
        return ended

    @staticmethod
    def watch(worker: int, report: int) -> None:
        """In the witness: wait for the worker's end and tell it; never returns."""
        try:
            os.setpgid(0, 0)
            os.dup2(report, KEPT_FROM)
            os.closerange(
                KEPT_FROM + 1,
                os.sysconf("SC_OPEN_MAX") if not os.path.isdir("/proc/self/fd") else _highest(),
            )
            _, status, usage = os.wait4(worker, 0)
            os.write(KEPT_FROM, pickle.dumps((status, usage.ru_maxrss * 1024)))
        finally:
            os._exit(0)


def _highest() -> int:
    return max(map(int, os.listdir("/proc/self/fd"))) + 1


def fork_worker(theirs: socket.socket, scoreboard_descriptor: int, inherited: Any) -> Forked:
    """Fork a worker that lives on its end of the channel, which is closed here.

    It begins when it is permitted.

    Raises:
        StartMethodRefused: a fork would hang or corrupt.
    """
    # Loaded once, here, for every worker: a program that has changed its user may not be allowed to
    # read them any more.
    from multiprocessing import context, process, resource_tracker, spawn, util  # noqa: F401

    try:
        refuse_unsafe_fork()
        waiting, permit = pair()
    except BaseException:
        theirs.close()
        raise
    tracker = descriptor_of_the_tracker()
    # Newer Pythons close the module's own in a forked process
    tracker = -1 if tracker is None else os.dup(tracker)
    pid, witness = _fork_before_a_witness() if Witness.is_needed() else (_fork(), None)
    if pid == 0:
        permit.close()
        _live(waiting, theirs, scoreboard_descriptor, tracker, inherited)
    theirs.close()
    if tracker >= 0:
        os.close(tracker)
    waiting.close()
    return Forked(pid, permit, witness)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns of a fork beside any thread; those beside which this one happens are ours,
        # and known.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        return os.fork()


def _fork_before_a_witness() -> tuple[int, Witness | None]:
    """Fork twice.

    It returns 0 in the worker, and in the program the worker's process id and its witness.
    """
    report, told = os.pipe()
    pid = _fork()
    if pid == 0:
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        worker = os.fork()
        if worker == 0:
            signal.signal(signal.SIGCHLD, before)
            os.close(report)
            os.close(told)
            return 0, None
        with contextlib.suppress(BaseException):
            os.write(told, worker.to_bytes(8, "little"))
        Witness.watch(worker, told)
    os.close(told)
    worker = int.from_bytes(os.read(report, 8), "little")
    os.set_blocking(report, False)
    return worker, Witness(pid, report)


def _live(
    waiting: socket.socket,
    theirs: socket.socket,
    scoreboard_descriptor: int,
    tracker: int,
    inherited: Any,
) -> None:
    try:
        os.setpgid(0, 0)
        if not waiting.recv(1):
            os._exit(0)
        waiting.close()
        atexit._clear()  # what the program registered is the program's to run
        signal.set_wakeup_fd(-1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        from teamster.spine.workers.process.child_main import main
        from teamster.spine.workers.process.kinship import forget_the_program
        from teamster.spine.workers.seeds import scatter_state

        forget_the_program()
        scatter_state()
        main(theirs.detach(), scoreboard_descriptor, tracker, inherited)
    finally:
        os._exit(1)


def refuse_unsafe_fork() -> None:
    """Raise where a fork of this process would hang or corrupt.

    Raises:
        StartMethodRefused: CUDA is initialised, Python threads of the program's run, or OpenMP
            threads do.
    """
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    instead = "leave start_method out (the default is a fork server), or fork before that"
    if cuda is not None and cuda.is_initialized():
        raise StartMethodRefused(
            "start_method='fork' after CUDA was initialised: a forked CUDA context cannot be "
            f"used; {instead}"
        )
    ours = threads_of_ours()
    if threading.current_thread() in ours:
        # It replaces a worker, as a thread of multiprocessing.Pool does
        ours.add(threading.main_thread())
    ours.add(threading.current_thread())
    others = [thread.name for thread in threading.enumerate() if thread not in ours]
    if others:
        raise StartMethodRefused(
            f"start_method='fork' while other threads run ({', '.join(others[:3])}): a lock that "
            f"one of them holds would never be released in the worker; {instead}"
        )
    if _openmp_loaded() and _runs_openmp(sum(thread.is_alive() for thread in ours)):
        raise StartMethodRefused(
            "start_method='fork' after OpenMP has started its threads: a parallel region in the "
            f"worker would hang; {instead}"
        )


def _runs_openmp(known: int) -> bool:
    """Whether there are more threads than these, and those that OpenBLAS ends at a fork itself."""
    others = _native_threads() - known
    if others <= 0:
        return False
    from teamster.machine.native_threads import openblas_threads  # not for every program

    return others > openblas_threads()


def _native_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def _openmp_loaded() -> bool:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            mapped = maps.read()
    except OSError:
        return False
    return any(name in mapped for name in ("libgomp", "libiomp", "libomp"))
