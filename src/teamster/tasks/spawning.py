# SPDX-License-Identifier: BSD-3-Clause
"""`ts.spawn`: one process for one call, with its result, its error and messages both ways."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from teamster.errors import UsageError
from teamster.spine.transport.by_value.originals import begin_call
from teamster.spine.transport.pickled import pack, pack_function, unpack
from teamster.spine.workers.exceptions import transfer_error
from teamster.spine.workers.process.assembly import refuse_while_importing
from teamster.spine.workers.process.start import Entry
from teamster.spine.workers.runner import title_of
from teamster.tasks.arguments import check_callable
from teamster.tasks.child_call import INSTEAD, LARGE_BYTES, MOST_BYTES, ChildCall
from teamster.tasks.keeper import Keeper, the_keeper

_MAKE_CALL = "teamster.tasks.spawned:make_call"


def spawn(target: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Process:
    """Start a process that calls ``target(*args, **kwargs)``.

    It is started as a worker is: from a fork server, without an ``if __name__ == "__main__"``
    guard, with functions of ``__main__``, lambdas and closures, and with what the program has set
    in its interpreter and libraries. What it prints, logs and warns comes out of the program. It
    ends with the program, whatever that dies of.

    Args:
        target: any callable; it finds the program with `teamster.parent`.
        *args: for it; large arrays travel through shared memory.
        **kwargs: for it.

    Returns:
        The process, which runs already.

    Raises:
        UsageError: the target is not callable.
        TransferError: the target or an argument does not pickle.

    Example:
        >>> import teamster as ts
        >>> ts.spawn(pow, 2, 10).result()
        1024
        >>> def double():
        ...     while (number := ts.parent().recv()) is not None:
        ...         ts.parent().send(2 * number)
        >>> with ts.spawn(double) as process:
        ...     process.send(21)
        ...     print(process.recv())
        ...     process.send(None)
        42
    """
    check_callable(target)
    return start_process("", title_of(target), target, args, kwargs)


def start_process(
    label: str,
    title: str,
    target: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> Process:
    """The same with a name of its own.

    Args:
        label: of its lane on a timeline; empty for the usual one.
        title: what messages call it.
        target: as of `spawn`.
        args: as of `spawn`.
        kwargs: as of `spawn`.
    """
    refuse_while_importing()
    entry = _entry(target, args, kwargs or {})
    with contextlib.closing(entry):
        while True:
            keeper = the_keeper()
            with keeper.changed:
                if not keeper.over:  # else its last process ended in between
                    return Process(keeper, keeper.start(title, entry, (title,), label))


def _entry(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
    try:
        return Entry(_MAKE_CALL, (target, args, kwargs), "forkserver")
    except Exception as reason:
        try:
            pack_function(target)
        except Exception:
            raise transfer_error(f"the function {title_of(target)!r}", reason, INSTEAD) from reason
        raise transfer_error("the argument", reason, INSTEAD) from reason


class Process:
    """A process that runs one call; `spawn` makes it.

    As a context manager it is waited for at the end of the block, and killed when the block raises.
    Without that, and without `join`, the program waits for it when it ends, unless that ends by an
    error or `daemon` is set.

    Args:
        keeper: reads what it sends.
        call: what is known of it.

    Example:
        >>> import teamster as ts
        >>> process = ts.spawn(max, [3, 5])
        >>> process.join()
        >>> process.exitcode, process.result()
        (0, 5)
    """

    __slots__ = ("__weakref__", "_call", "_keeper")

    def __init__(self, keeper: Keeper, call: ChildCall) -> None:
        self._keeper, self._call = keeper, call

    @property
    def name(self) -> str:
        """What messages call it: at first the name of the target; may be set."""
        return self._call.name

    @name.setter
    def name(self, name: str) -> None:
        self._call.name = name

    @property
    def daemon(self) -> bool:
        """Whether the end of the program ends it; may be set at any time."""
        return self._call.daemon

    @daemon.setter
    def daemon(self, daemon: bool) -> None:
        self._call.daemon = daemon

    # --- the call ---------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> Any:
        """What the call has returned.

        Args:
            timeout: seconds to wait for that; None for as long as it takes.

        Returns:
            The value; None where the target left by ``sys.exit()`` without an error.

        Raises:
            TimeoutError: it still runs; it goes on.
            Exception: what the target raised, with its traceback as the cause.
            WorkerDied: the process died.

        Example:
            >>> import teamster as ts
            >>> ts.spawn(int, "12").result()
            12
        """
        value, error = self._outcome(timeout)
        if error is not None:
            raise error
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call has raised, or how its process died.

        Args:
            timeout: seconds to wait for that; None for as long as it takes.

        Returns:
            The error that `result` would raise; None when the call has returned.

        Raises:
            TimeoutError: it still runs; it goes on.

        Example:
            >>> import teamster as ts
            >>> ts.spawn(int, "twelve").exception()
            ValueError("invalid literal for int() with base 10: 'twelve'")
        """
        return self._outcome(timeout)[1]

    def _outcome(self, timeout: float | None) -> tuple[Any, BaseException | None]:
        call = self._call
        with self._keeper.changed, self._draining():
            self._await(lambda: call.done, timeout, f"{call.name} still runs after {timeout} s")
        return call.outcome()

    @contextlib.contextmanager
    def _draining(self) -> Iterator[None]:
        self._call.drain(True)
        try:
            yield
        finally:
            self._call.drain(False)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended; whether it has says `is_alive`.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Example:
            >>> import teamster as ts, time
            >>> process = ts.spawn(time.sleep, 0.01)
            >>> process.join()
            >>> process.is_alive()
            False
        """
        with self._keeper.changed, contextlib.suppress(TimeoutError), self._draining():
            self._await(lambda: self._call.ended, timeout, "")

    def is_alive(self) -> bool:
        """Whether the process has not ended.

        Returns:
            True until its exit code is known.

        Example:
            >>> import teamster as ts, time
            >>> with ts.spawn(time.sleep, 1) as process:
            ...     process.is_alive()
            True
        """
        return not self._call.ended

    @property
    def exitcode(self) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it runs."""
        return self._call.code

    @property
    def pid(self) -> int | None:
        """Its process id; None when it could not be started."""
        with self._keeper.changed:
            self._keeper.changed.wait_for(lambda: self._call.child.pid or self._call.ended)
        return self._call.child.pid or None

    def terminate(self) -> None:
        """Send SIGTERM to the process: it ends, or runs the handler that it has set.

        Example:
            >>> import teamster as ts, time
            >>> process = ts.spawn(time.sleep, 60)
            >>> process.terminate()
            >>> process.join()
            >>> process.exitcode
            -15
        """
        self._call.ask_to_end("terminate() has ended it")
        self._keeper.signal(self._call.child, signal.SIGTERM)

    def kill(self) -> None:
        """End the process, and what it has started, at once.

        Example:
            >>> import teamster as ts, time
            >>> process = ts.spawn(time.sleep, 60)
            >>> process.kill()
            >>> process.join()
            >>> process.exitcode
            -9
        """
        self._call.ask_to_end("kill() has ended it")
        self._keeper.kill(self._call.child)

    # --- messages ---------------------------------------------------------------------------------

    def send(self, value: Any) -> None:
        """Send a message to the process: its ``teamster.parent().recv()`` returns it.

        Waits while the process has not read what was sent before.

        Args:
            value: anything that pickles; large arrays travel through shared memory.

        Raises:
            TransferError: it does not pickle.
            BrokenPipeError: the process has ended.

        Example:
            >>> import teamster as ts
            >>> process = ts.spawn(lambda: sum(ts.parent().recv()))
            >>> process.send([1, 2, 3])
            >>> process.result()
            6
        """
        begin_call()
        try:
            parcel = pack(value)
        except Exception as reason:
            raise transfer_error("the message", reason, INSTEAD) from reason
        keeper, call = self._keeper, self._call
        with keeper.changed:
            keeper.raise_if_broken()
            with self._draining():  # the child may be waiting to send
                self._await(lambda: call.unread_bytes < MOST_BYTES or call.ended, None, "")
                self._check_open()
                call.unread_bytes += parcel.nbytes if parcel.nbytes >= LARGE_BYTES else 0
                call.sent = keeper.put(call.child, ("message",), parcel)
                self._await(lambda: call.sent, None, "")

    def _check_open(self) -> None:
        if self._call.ended:
            self._call.told = True
            ended = f"{self.name} has ended and reads no more; result() says how it ended"
            raise BrokenPipeError(ended) from self._call.error

    def recv(self, timeout: float | None = None) -> Any:
        """The next message that the process has sent with ``teamster.parent().send(...)``.

        Args:
            timeout: seconds to wait for one; None for as long as it takes.

        Returns:
            What was sent; arrays in it are views of shared memory, which is used again when they
            are gone.

        Raises:
            TimeoutError: none has come.
            EOFError: the process has ended, and all that it has sent was received.

        Example:
            >>> import teamster as ts
            >>> ts.spawn(lambda: ts.parent().send({"loss": 0.5})).recv()
            {'loss': 0.5}
        """
        call = self._call
        with self._keeper.changed:
            self._await(
                lambda: bool(call.inbox or call.ended),
                timeout,
                f"no message of {call.name} in {timeout} s",
            )
            if not call.inbox:
                call.told = True
                raise EOFError(f"{call.name} has ended, and sent nothing more") from call.error
            parts = call.receive()
        return unpack(*parts)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether `recv` would not wait: a message is there, or the process has ended.

        Args:
            timeout: seconds to wait for that; None for as long as it takes.

        Returns:
            False when the time was over before.

        Example:
            >>> import teamster as ts
            >>> ts.spawn(lambda: ts.parent().send("ready")).poll(timeout=60)
            True
        """
        call = self._call
        try:
            with self._keeper.changed:
                self._await(lambda: bool(call.inbox or call.ended), timeout, "")
        except TimeoutError:
            return False
        return True

    def _await(self, done: Callable[[], bool], timeout: float | None, what: str) -> None:
        try:
            if not self._keeper.changed.wait_for(done, timeout):
                raise TimeoutError(what)
        except KeyboardInterrupt:
            self._call.interrupted = True
            raise
        self._keeper.raise_if_broken()

    # --- as an object -----------------------------------------------------------------------------

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.kill()
        self.join()

    def __repr__(self) -> str:
        state = f"ended with exit code {self.exitcode}" if self._call.ended else "runs"
        return f"<Process {self.name!r}, pid {self.pid}, {state}>"

    def __reduce__(self) -> Any:
        raise UsageError("a process cannot be sent to another process; send what it sends")
