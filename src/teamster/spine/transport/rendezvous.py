# SPDX-License-Identifier: BSD-3-Clause
"""How programs of this user find each other: sockets in a folder that is this user's alone.

::

    claim(name) --> a listener: no other program has the name     <-- the first program
                    a connection to the one that has it           <-- all others, until it ends

A socket has its program's number in its name, so that what removes it after a ``kill -9``, a shell
that waits for the end of a pipe, removes no successor's. Who looks, takes away what is dead, and
binds, does that under a lock of the folder: two programs never have the same name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import tempfile

from teamster.errors import UsageError
from teamster.machine.descriptors import Descriptor, OwnedSocket, fill_standard_numbers

# What a shell runs in the background has /dev/null for its standard input
_GUARD = '(read -r _ <&3; rm -f -- "$1") &'
LONGEST_PATH = 100
"""Bytes, of a socket's address."""


def runtime_folder() -> str:
    """Where the sockets of this user's programs are.

    Returns:
        A folder, which is not made here.

    Example:
        >>> runtime_folder().startswith("/")
        True
    """
    return runtime_folders()[0]


def runtime_folders() -> list[str]:
    """Where the sockets of this user's programs may be.

    A job of cron has no runtime folder, and a terminal has.

    Returns:
        The folder that programs use that are started here, then others.

    Example:
        >>> runtime_folders()[-1].endswith(f"teamster-{os.getuid()}")
        True
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "") or f"/run/user/{os.getuid()}"
    folders = [f"{given}/teamster"] if given.startswith("/") and os.path.isdir(given) else []
    return [*folders, f"{tempfile.gettempdir()}/teamster-{os.getuid()}"]


def check_folder(folder: str) -> bool:
    """Whether a folder is this user's alone: in a temporary folder any user may have made it.

    Args:
        folder: the path.

    Returns:
        False also when there is none.

    Example:
        >>> check_folder("/no/such/folder")
        False
    """
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    )


def guard(path: str) -> Descriptor:
    """Have a shell remove `path` when this process is gone; returns what it waits for the end of.

    The shell that is started ends at once and leaves another behind, which is not this program's
    child: programs wait for their children. It leads a session of its own, so that Ctrl-C does not
    end it.
    """
    fill_standard_numbers()
    read, write = os.pipe()
    try:
        quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        moves = [*quiet, (os.POSIX_SPAWN_DUP2, read, 3)]
        command = ["sh", "-c", _GUARD, "teamster-guard", path]
        pid = os.posix_spawn("/bin/sh", command, {}, file_actions=moves, setsid=True)
        os.waitpid(pid, 0)
    except OSError:
        os.close(write)
        raise
    finally:
        os.close(read)
    return Descriptor(write)


class Claim:
    """A name that this program has, until it is given up or the program ends.

    Attributes:
        listener: other programs connect to it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = guard(path)
        self.listener = OwnedSocket.of(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            self.listener.bind(path)
            os.chmod(path, 0o600)
            self.listener.listen()
        except OSError:
            self.close()
            raise

    def let_go(self) -> None:
        """In a forked copy of the program, whose original has the name."""
        self._path = ""
        self.listener.close()
        self._guard.close()

    def close(self) -> None:
        """Give the name up."""
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self.listener.close()
        self._guard.close()


def claim(name: str) -> Claim | socket.socket:
    """Have a name among this user's programs, or a connection to the one that has it.

    Args:
        name: letters, digits and the signs ``-_.``.

    Raises:
        UsageError: the name is none, or there is no folder of this user's own.
        OSError: no descriptor is left.

    Example:
        >>> mine = claim("a-name-for-an-example")
        >>> theirs = claim("a-name-for-an-example")
        >>> type(mine).__name__, type(theirs).__name__
        ('Claim', 'socket')
        >>> theirs.close(); mine.close()
    """
    if not name or not all(sign.isalnum() or sign in "-_." for sign in name):
        raise UsageError(f"a name has letters, digits and -_. only, not {name!r}")
    folder = runtime_folder()
    with contextlib.suppress(FileExistsError, OSError):
        os.mkdir(folder, 0o700)
    path = f"{folder}/{name}@{os.getpid()}"
    if not check_folder(folder) or len(os.fsencode(path)) > LONGEST_PATH:
        raise UsageError(
            f"programs cannot find each other: {folder} is not a folder of this user's alone, or "
            f"the name {name!r} is too long; set XDG_RUNTIME_DIR to a folder of mode 700"
        )
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # for the few microseconds of this look
        return _connected(folder, name) or Claim(path)
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # a copy that was forked meanwhile has it, too
        os.close(lock)


def _connected(folder: str, name: str) -> socket.socket | None:
    """A connection to the program that has the name; sockets of dead ones are taken away."""
    for entry in os.listdir(folder):
        if entry.rpartition("@")[0] != name:
            continue
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            end.connect(f"{folder}/{entry}")
            if is_of_this_user(end):
                return end
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}/{entry}")
        end.close()
    return None


def is_of_this_user(end: socket.socket) -> bool:
    """Whether the process at the other end of a socket is this user's.

    Example:
        >>> one, other = socket.socketpair()
        >>> is_of_this_user(one)
        True
        >>> one.close(); other.close()
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder is this user's alone
    form = struct.Struct("3i")
    _, user, _ = form.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size))
    return bool(user == os.getuid())
