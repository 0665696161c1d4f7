# SPDX-License-Identifier: BSD-3-Clause
"""How a worker process ends, and what it leaves that tells why it died."""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

from teamster.spine.workers.scoreboard import NBYTES, Scoreboard


def write_crashes_to(scoreboard: Scoreboard) -> None:
    """Have faulthandler write behind the scoreboard's log."""
    import faulthandler

    os.lseek(scoreboard.descriptor, NBYTES, os.SEEK_SET)
    faulthandler.enable(scoreboard.descriptor)


def report_crash(scoreboard_descriptor: int) -> None:
    """A mistake of ours in the loop above; the parent finds the text behind the scoreboard."""
    import traceback

    os.write(scoreboard_descriptor, traceback.format_exc().encode())


def leave(code: int) -> None:
    """End as an interpreter ends, but without the teardown of its modules.

    That can hang in foreign threads. Threads that are no daemons are waited for, then what the user
    registered runs. The parent sets the limit.
    """
    import atexit

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # a task may have put another one on top of ours
            for each in (stream, getattr(stream, "buffer", None)):
                getattr(each, "drain", bool)()
    except BaseException:
        pass
    finally:
        os._exit(code)


def end_copy(error: BaseException | None) -> NoReturn:
    """End a process that a task has forked, which has come to the end of the task.

    It ends as a program ends that this has happened to.
    """
    code = 0
    try:
        if isinstance(error, SystemExit) and isinstance(error.code, int | None):
            code = error.code or 0
        elif error is not None:
            code = 1
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stdout.flush()
    finally:
        os._exit(code & 0xFF)
