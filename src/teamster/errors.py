# SPDX-License-Identifier: BSD-3-Clause
"""Every error of Teamster's own.

::

    TeamsterError
    ├── UsageError (ValueError)            an argument makes no sense; nothing was started
    ├── StartMethodRefused (RuntimeError)  the start method given would hang or corrupt this process
    ├── PoolClosed (RuntimeError)          the pool was closed or terminated before
    ├── WorkerStartError (RuntimeError)    workers die before they are ready; no item is to blame
    └── TaskError                          one item went wrong; carries its `index`
        ├── WorkerDied                     the process that ran the item died
        ├── TaskTimeout (TimeoutError)     the item ran longer than `timeout`; its worker was killed
        ├── TransferError (TypeError)      the item's argument or result does not survive pickling
        └── RemoteError (RuntimeError)     the item raised what cannot be raised here: see its text

What a user's function raises is none of these: it arrives as its own type. A `TaskError` therefore
never means that the function said no; it means that the answer could not be had.
"""

from __future__ import annotations


class TeamsterError(Exception):
    """Base of every error of Teamster's own; a user's exceptions never derive from it.

    Example:
        >>> issubclass(WorkerDied, TeamsterError)
        True
    """


class UsageError(TeamsterError, ValueError):
    """An argument makes no sense; nothing was started. Not raised for what a task does.

    Example:
        >>> import teamster as ts
        >>> ts.Pool(workers=0)
        Traceback (most recent call last):
        teamster.errors.UsageError: workers must be at least 1, not 0; leave it out to use every
        core
    """


class StartMethodRefused(TeamsterError, RuntimeError):
    """The start method asked for would hang or corrupt this process.

    Fork with threads running would, and fork after CUDA.

    Example:
        >>> issubclass(StartMethodRefused, RuntimeError)
        True
    """


class PoolClosed(TeamsterError, RuntimeError):
    """The pool was closed or terminated; make a new one.

    Example:
        >>> import teamster as ts
        >>> pool = ts.Pool("serial")
        >>> pool.close()
        >>> pool.map(abs, [1])
        Traceback (most recent call last):
        teamster.errors.PoolClosed: this pool is closed; make a new one
    """


class WorkerStartError(TeamsterError, RuntimeError):
    """Workers die again and again before they are ready.

    No item is to blame, and none was run by them.

    Example:
        >>> issubclass(WorkerStartError, TeamsterError)
        True
    """


class TaskError(TeamsterError):
    """One item went wrong in a way that is not its own exception.

    Attributes:
        index: position of the item in the input, counted from 0; -1 for a call of `submit`.

    Example:
        >>> TaskError("what happened", index=7).index
        7
    """

    def __init__(self, message: str, *, index: int = -1) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class WorkerDied(TaskError, RuntimeError):
    """The process that ran the item died: killed by a signal, out of memory, or by ``os._exit``.

    It does not mean that the item is wrong: the kernel may have chosen its worker for reasons of
    its own.

    Attributes:
        index: position of the item in the input, counted from 0; -1 for a call of `submit`.
        worker: index of the worker, counted from 0.
        exitcode: exit code, None when a signal ended it or it is not known.
        signal: number of the signal, None when it ended by itself or it is not known.

    Example:
        >>> WorkerDied("worker 1 died", index=3, worker=1, signal=9).signal
        9
    """

    def __init__(
        self,
        message: str,
        *,
        index: int = -1,
        worker: int = -1,
        exitcode: int | None = None,
        signal: int | None = None,
    ) -> None:
        super().__init__(message, index=index)
        self.worker = worker
        self.exitcode = exitcode
        self.signal = signal


class TaskTimeout(TaskError, TimeoutError):
    """The item ran longer than `timeout` seconds; its worker was killed and replaced.

    Time spent in queues does not count.

    Attributes:
        index: position of the item in the input, counted from 0; -1 for a call of `submit`.
        seconds: the limit that it broke, in seconds.
        worker: index of the worker, counted from 0.

    Example:
        >>> TaskTimeout("item 3 took too long", index=3, seconds=1.5).seconds
        1.5
    """

    def __init__(
        self, message: str, *, index: int = -1, seconds: float = 0.0, worker: int = -1
    ) -> None:
        super().__init__(message, index=index)
        self.seconds = seconds
        self.worker = worker


class TransferError(TaskError, TypeError):
    """The item's argument or its result does not survive pickling; the cause says why.

    Other items are not affected.

    Attributes:
        index: position of the item in the input, counted from 0; -1 for a call of `submit`, and
            where it is no item's.
        part: which it was: "function", "argument" or "result"; empty where that is not known.

    Example:
        >>> str(TransferError("the argument cannot be sent", index=17, part="argument"))
        'item 17: the argument cannot be sent'
    """

    def __init__(self, message: str, *, index: int = -1, part: str = "") -> None:
        super().__init__(message, index=index)
        self.part = part

    def __str__(self) -> str:
        text = super().__str__()
        return f"item {self.index}: {text}" if self.index >= 0 else text


class RemoteError(TaskError, RuntimeError):
    """The item raised something that cannot be raised here.

    The text holds its repr and its traceback. Either its class cannot be rebuilt in this process,
    or raising it here would mean something else (``SystemExit`` would end the program,
    ``StopIteration`` a loop).

    Example:
        >>> issubclass(RemoteError, RuntimeError)
        True
    """


class TooManyErrors(TeamsterError, RuntimeError):
    """More samples could not be read than a loader's `max_errors` allows.

    It does not mean that the loader is broken: with `max_errors=None` it would go on.

    Example:
        >>> raise TooManyErrors("2 of 20 samples could not be read")
        Traceback (most recent call last):
        ...
        teamster.errors.TooManyErrors: 2 of 20 samples could not be read
    """


def _rebuild(
    kind: type[TaskError], arguments: tuple[object, ...], state: dict[str, object]
) -> TaskError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


def annotate(error: BaseException, note: str) -> None:
    """Add a note to an exception, unless its class refuses that.

    A frozen dataclass takes no attribute, whatever it is for.

    Example:
        >>> error = ValueError("wrong")
        >>> annotate(error, "in line 3")
        >>> error.__notes__
        ['in line 3']
    """
    try:
        error.add_note(note)
    except Exception:
        return


def first_line(error: BaseException) -> str:
    """The first line of what an error says, its type where it says nothing.

    Example:
        >>> first_line(ValueError("wrong" + chr(10) + "and more")), first_line(KeyError())
        ('wrong', 'KeyError')
    """
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
