# SPDX-License-Identifier: BSD-3-Clause
"""How a child process comes to life.

It is forked from the fork server, spawned by it, or forked from the program itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from time import perf_counter_ns
from typing import Any

from teamster.errors import WorkerStartError
from teamster.machine.native_threads import environment
from teamster.spine.transport.channel import Channel, Encoded
from teamster.spine.transport.pickled import pack_function
from teamster.spine.transport.shared_parcel import SharedParcel
from teamster.spine.workers.process import streams
from teamster.spine.workers.process.child import Child
from teamster.spine.workers.process.environment import current_environment, place_of_the_program
from teamster.spine.workers.process.executable import command, find_executable
from teamster.spine.workers.process.forking import Forked, fork_worker, refuse_unsafe_fork
from teamster.spine.workers.process.forkserver import the_fork_server
from teamster.spine.workers.process.main_module import describe_main
from teamster.spine.workers.process.resource_tracker import adopt_tracker, descriptor_of_the_tracker


class Entry:
    """What a child is to do: an entry point that its parent names, and what that is given.

    Args:
        name: ``module:function``, called in the child as child_main.py says.
        argument: any object; a fork brings it along as it is, as it does for `multiprocessing`.
        start_method: how children will be started.

    Raises:
        Exception: the argument does not pickle.
    """

    __slots__ = ("_argument", "inherited", "name")

    def __init__(self, name: str, argument: object, start_method: str) -> None:
        self.name = name
        self.inherited = argument if start_method == "fork" else None
        # One for all children: they share what is large in it
        self._argument = SharedParcel(pack_function(None if start_method == "fork" else argument))

    @property
    def nbytes(self) -> int:
        """Bytes of the argument that are in shared memory."""
        return self._argument.nbytes

    def stow(self, channel: Channel) -> Encoded:
        """Make the argument ready for the next message of a child's channel."""
        return self._argument.stow(channel)

    def close(self) -> None:
        """No more children are started."""
        self._argument.close()


class ChildSetup:
    """The environment that children live in, and how they are started.

    Args:
        start_method: "forkserver", "spawn" or "fork".
        native_threads: how many threads of OpenMP and its like each may have; None leaves them
            alone.
        preload: modules that their fork server has imported.
    """

    def __init__(
        self, start_method: str, native_threads: int | None, preload: tuple[str, ...] = ()
    ) -> None:
        self.start_method = start_method
        self.preload = preload
        self.environment = current_environment()
        self._native_threads = native_threads

    def settings(self) -> dict[str, Any]:
        """The state of the program now, in a form that travels."""
        self.look_again()
        place = place_of_the_program()
        if self._native_threads is not None:
            place["environ"] |= environment(self._native_threads)
        return {
            "asked_ns": perf_counter_ns(),
            "environment": place | self.environment,
            "native_threads": self._native_threads,
            "argv": list(sys.argv),
            "main": None if self.start_method == "fork" else describe_main(),
            **streams.snapshot(),
        }

    def look_again(self) -> None:
        """Children that start or get the news from now on are told of the program as it is now."""
        now = current_environment()
        if now != self.environment:
            self.environment = now


class Starter:
    """Starts children and knows how they ended."""

    def __init__(self, setup: ChildSetup) -> None:
        self._setup = setup
        self._method = setup.start_method
        self._fork_server = the_fork_server(setup.preload)
        if self._method == "fork":
            refuse_unsafe_fork()
        self.generation = 0  # how many servers there were before
        self.why_not: WorkerStartError | None = None  # of a server that never came up
        self.control = self._connect()
        self._forked: dict[int, Forked] = {}  # by token, those forked from this process

    def _connect(self) -> Channel:
        self._serving = self._method == "fork"
        self._asked_ns = perf_counter_ns()
        control = self._fork_server.connect(to_guard=self._method == "fork")
        self._server_generation = self._fork_server.generation
        return control

    def start(
        self, token: int, theirs: socket.socket, scoreboard_descriptor: int, entry: Entry
    ) -> None:
        """Start a child on its end of the channel, which is closed here.

        Raises:
            WorkerStartError: there is nothing that could start one.
            StartMethodRefused: a fork would hang or corrupt.
        """
        try:
            self._refuse()
        except WorkerStartError:
            theirs.close()
            raise
        if self._method == "fork":
            forked = fork_worker(theirs, scoreboard_descriptor, entry.inherited)
            self._forked[token] = forked
            self._guard(forked)
            return
        executable = _spawn_command() if self._method == "spawn" else None
        with contextlib.closing(theirs):
            message, given = (
                ("spawn", token, executable),
                _descriptors(theirs.fileno(), scoreboard_descriptor),
            )
            try:
                self.control.put(message, given)
            except OSError:
                self.reconnect()
                self._refuse()  # the server has ended before it was asked for anything
                self.control.put(message, _descriptors(theirs.fileno(), scoreboard_descriptor))

    def _refuse(self) -> None:
        """Raise why nothing can be started, once."""
        why_not, self.why_not = self.why_not, None
        if why_not is not None:
            raise why_not

    def _guard(self, forked: Forked) -> None:
        try:
            self.control.put(("guard", forked.pid))
        except OSError:
            self.reconnect()
        forked.permit()

    def seconds_to_answer(self) -> float | None:
        """How long the fork server may take to answer, None when it has.

        A server that has used up its time is ended.
        """
        if self._serving or self.why_not is not None:
            return None
        left = self._fork_server.patience_s() - (perf_counter_ns() - self._asked_ns) / 1e9
        if left <= 0:
            # The server's end is then read from the control
            self.why_not = self._fork_server.why_silent(self._server_generation)
        return max(0.0, left)

    def is_current(self) -> bool:
        """Whether what was started is still of use to the program as it is now."""
        return self.why_not is not None or (
            self.control.is_whole()
            and self._fork_server.is_of_this_user()
            and self._fork_server.generation == self._server_generation
        )

    def renew(self) -> None:
        """Have another control channel.

        It is another server's where the program cannot use this one any more.
        """
        self._serving = True  # or it would be blamed for not having answered yet
        self.reconnect()

    def reconnect(self) -> WorkerStartError | None:
        """The fork server died: its workers die with it, the next ones come from a new server.

        Returns:
            Why there is none: the last one had not even answered, or there is no Python to start.
            The next worker that is asked for is refused with that.
        """
        why_not = (
            None
            if self._serving or self.why_not
            else self._fork_server.why_silent(self._server_generation)
        )
        self.control.close()
        try:
            self.control = self._connect()
        except WorkerStartError as error:
            why_not = error
        self.why_not = why_not or self.why_not
        self.generation += 1
        for forked in self._forked.values():
            with contextlib.suppress(OSError):
                self.control.put(("guard", forked.pid))
        return why_not

    def hear(self, children: dict[int, Child]) -> bool:
        """Take what the fork server says of children, by their tokens; False: it is gone."""
        control = self.control
        try:
            messages = control.take()
        except BlockingIOError:
            return True
        for message in messages or ():
            if message[0] == "serving":
                self._serving = True
            elif message[0] == "tracker":
                adopt_tracker(control.attached.pop(0))
            elif (named := children.get(message[1])) is not None:
                if message[0] == "born":
                    named.pid = message[2]
                else:
                    named.status = message[2], message[3]
        return messages is not None

    def signal(self, token: int, number: int) -> None:
        """Send a signal to a child, if it still lives; what it started gets none."""
        if token in self._forked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._forked[token].pid, number)
            return
        with contextlib.suppress(OSError):  # the server is gone, and so is the child
            self.control.put(("signal", token, number))

    def kill(self, token: int) -> None:
        """End a worker at once."""
        if token in self._forked:
            self._forked[token].kill()
            return
        with contextlib.suppress(OSError):  # the server is gone, and so is the worker
            self.control.put(("kill", token))

    def status(self, token: int) -> tuple[int | None, int] | None:
        """Exit status and peak memory (bytes) of a worker that this process forked.

        None while it lives, or is another's.
        """
        forked = self._forked.get(token)
        ended = forked.status() if forked is not None else None
        if forked is not None and ended is not None:
            forked.kill()  # what its tasks started
            del self._forked[token]
            with contextlib.suppress(OSError):
                self.control.put(("unguard", forked.pid))
        return ended

    def close(self) -> None:
        """Let go of the server, which kills whatever is left."""
        for forked in self._forked.values():
            forked.end()
        self._forked.clear()
        self.control.close()


def _descriptors(channel: int, scoreboard: int) -> tuple[int, ...]:
    """What a worker is given.

    These are copies of its channel, its scoreboard, the program's tracker and output.

    Raises:
        OSError: the system gives no more.
    """
    tracker, made = descriptor_of_the_tracker(), list[int]()
    try:
        for descriptor in (channel, scoreboard):
            made.append(os.dup(descriptor))
        made.append(os.open(os.devnull, os.O_WRONLY) if tracker is None else os.dup(tracker))
        for number in (1, 2):
            made.append(_standard(number))
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    return tuple(made)


def _spawn_command() -> list[str]:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from teamster.spine.workers.process import "
        "allocator, child_main; allocator.keep_freed_memory(); child_main.main(3, 4, 5)"
    )
    return command(find_executable(), code, "teamster-worker")


def _standard(number: int) -> int:
    """A duplicate of a standard descriptor; /dev/null where the program has closed it.

    A number that was closed is given to whatever is opened next. Python opens nothing that children
    inherit, and a standard stream is there to be inherited: that tells them apart.
    """
    return os.dup(number) if os.get_inheritable(number) else os.open(os.devnull, os.O_WRONLY)
