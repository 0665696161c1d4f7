# SPDX-License-Identifier: BSD-3-Clause
"""Keys from a terminal, without waiting for Enter, and the terminal as it was before in every case.

::

    with Terminal() as terminal:  no echo, no lines; SIGTERM and SIGHUP become exceptions, so that
                                  this block is left
        terminal.read(0.5)        ["q"], ["up", "up"], [] after half a second
        terminal.stops            Ctrl-Z was pressed: leave the page, then terminal.stop() sleeps
                                  until `fg`
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from types import FrameType, TracebackType
from typing import Any

_NAMES = {"A": "up", "B": "down", "C": "right", "D": "left"}


def split_keys(data: bytes) -> list[str]:
    """Tell one key from the next.

    Args:
        data: what a terminal sent.

    Returns:
        Letters, and ``"up"``, ``"down"``, ``"left"``, ``"right"``, ``"tab"``; what is not known
        is left out.

    Example:
        >>> split_keys(b"q" + bytes([27]) + b"[A" + bytes([9]))
        ['q', 'up', 'tab']
    """
    keys = []
    text = data.decode(errors="ignore")
    while text:
        letter, text = text[0], text[1:]
        if letter == "\x1b" and text[:1] in ("[", "O"):
            end = next(
                (place for place, each in enumerate(text[1:], 1) if "@" <= each <= "~"),
                len(text) - 1,
            )
            keys.append(_NAMES.get(text[end], "") if end == 1 else "")
            text = text[end + 1 :]
        else:
            keys.append("tab" if letter == "\t" else letter if letter.isprintable() else "")
    return [key for key in keys if key]


class Terminal:
    """The terminal at stdin; a context manager. Where stdin is none, it has no keys.

    Example:
        >>> Terminal().stops
        False
    """

    def __init__(self) -> None:
        self.stops = False
        self._file = -1
        self._settings: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.stdin.isatty():
                self._file = sys.stdin.fileno()

    def __enter__(self) -> Terminal:
        for number, handler in (
            (signal.SIGTERM, _end),
            (signal.SIGHUP, _end),
            (signal.SIGTSTP, self._note_stop),
        ):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                self._handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def read(self, seconds: float) -> list[str]:
        """Wait for keys.

        Args:
            seconds: at most.

        Returns:
            Those that were pressed; see `split_keys`.
        """
        if self._file < 0:
            time.sleep(seconds)
            return []
        if not select.select([self._file], [], [], seconds)[0]:
            return []
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(self._file, 1024)
        if not data:  # the terminal is gone
            self._file = -1
        return split_keys(data)

    def stop(self) -> None:
        """Sleep until the shell says to go on, with the terminal as it was."""
        self.stops = False
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self.stops = True

    def _take(self) -> None:
        if self._file >= 0:
            self._settings = termios.tcgetattr(self._file)
            tty.setcbreak(self._file, termios.TCSANOW)

    def _give_back(self) -> None:
        if self._settings is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._file, termios.TCSANOW, self._settings)
            self._settings = None


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
