# SPDX-License-Identifier: BSD-3-Clause
"""Which samples are being read, and where: for a batch that does not come in time.

::

    program --a byte, by a pipe--> process of the loader: a thread that waits for it
       <---- samples and stacks, in a file in memory that the process keeps open ----+

A thread, since the process itself is in the middle of a sample. The program opens both by the
process's own table of files, so that nothing has to be sent to it beforehand.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable

from teamster.machine.own_threads import own_thread

Told = list[tuple[str, str]]
"""Samples, as `repr` shows their indices, each with the stack of the thread that reads it."""

_FILE = "teamster-reading-"  # the name of that file, with the number of the pipe's end
_ANSWER_S = 3.0  # to wait for one that is in the middle of something that holds the lock
_LOOK_S = 0.01  # between two looks for the answers
_FRAMES = 8  # the innermost ones: below are those of the loader


def stacks_of(reading: Iterable[tuple[int, object]]) -> Told:
    """What threads of this process are reading, and where they are.

    Args:
        reading: threads, each with the index of its sample.

    Example:
        >>> [(index, stack)] = stacks_of([(threading.get_ident(), 7)])
        >>> index, "stacks_of" in stack
        ('7', True)
    """
    frames = sys._current_frames()  # with this one, which has them: they are let go of
    told = [
        (repr(index), "".join(traceback.format_stack(frames[thread], _FRAMES)))
        for thread, index in reading
        if thread in frames
    ]
    frames.clear()
    return told


def slow_among(told: Told, indices: object) -> str:
    r"""Those of them that belong to a batch, for people.

    Example:
        >>> slow_among([("7", "  File ..."), ("8", "")], [7])
        'sample 7 is being read:\n  File ...'
    """
    mine = set(map(repr, indices if isinstance(indices, (list, tuple)) else [indices]))
    return "\n".join(
        f"sample {index} is being read:\n{stack}" for index, stack in told if index in mine
    )


def answer(tell: Callable[[], Told]) -> None:
    """In a process of a loader: tell whoever asks, from now on.

    Args:
        tell: what is being read.
    """
    near, far = os.pipe()
    descriptor = os.memfd_create(f"{_FILE}{far}")  # by which the program sees that it may ask
    thread = threading.Thread(
        target=_answer, args=(near, descriptor, tell), name="teamster-witness", daemon=True
    )
    own_thread(thread).start()


def _answer(asked: int, descriptor: int, tell: Callable[[], Told]) -> None:
    while os.read(asked, 1):
        os.pwrite(descriptor, pickle.dumps(tell()), 0)  # at once, so that no half of it is read


def ask(pids: Iterable[int]) -> Told:
    """What processes of a loader are reading; those that do not answer have nothing to tell.

    Args:
        pids: of them.

    Example:
        >>> ask([])
        []
    """
    files: list[int] = []
    try:
        for pid in pids:
            with contextlib.suppress(OSError):  # it is gone
                _ask_one(pid, files)
        until = time.monotonic() + _ANSWER_S
        while not all(os.fstat(each).st_size for each in files) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return [one for each in files for one in _read(each)]
    finally:
        for each in files:
            os.close(each)


def _read(descriptor: int) -> Told:
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    told: Told = pickle.loads(data) if data else []
    return told


def _ask_one(pid: int, files: list[int]) -> None:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        _, found, number = os.readlink(f"{folder}/{name}").partition(_FILE)
        if not found:
            continue
        files.append(os.open(f"{folder}/{name}", os.O_RDWR))
        os.truncate(files[-1], 0)
        pipe = os.open(f"{folder}/{number.split()[0]}", os.O_WRONLY)
        os.write(pipe, b"?")
        os.close(pipe)
        return
