# SPDX-License-Identifier: BSD-3-Clause
"""What every test may use.

no_leftovers    runs by itself: after each test no process, thread or file in /dev/shm is left
wait_until      wait for a condition, with a deadline, instead of sleeping
within          a block of code must end in so many seconds
run_script      run a program in a session of its own and look at what it leaves behind
start_script    the same, still running: to be sent signals

Other programs may run beside the tests, as many as they like: the tests look at their own processes
only, have a runtime folder and, where the system lets them, a /dev/shm of their own, and count
seconds as the machine gives them (`FairClock`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import psutil
import pytest

from tests.fair_clock import FairClock
from tests.leftovers import SHM, describe, find_traces

POLL_SECONDS = 0.005
LEFTOVER_SECONDS = 2.0
MARKER = "TEAMSTER_TEST_SCRIPT"
LOST = re.compile(
    r"Exception ignored in: <function _get_module_lock.*?\nKeyboardInterrupt: ?\n", re.DOTALL
)
PRIVATE_SHM = pytest.StashKey[bool]()
RUNTIME = pytest.StashKey[str]()


class WaitUntil(Protocol):
    def __call__(
        self, predicate: Callable[[], object], seconds: float = 5.0, message: str = ""
    ) -> None: ...


class Within(Protocol):
    def __call__(self, seconds: float) -> contextlib.AbstractContextManager[None]: ...


class StartScript(Protocol):
    def __call__(
        self, text: str, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> Script: ...


class RunScript(Protocol):
    def __call__(
        self,
        text: str,
        *arguments: str,
        timeout: float = 30,
        stdin: str = "",
        env: dict[str, str] | None = None,
    ) -> Script: ...


# ----------------------------------------------------------------------------- a place of their own


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and all that they start, a runtime folder and a /dev/shm that no other
    program uses.
    """
    config.stash[PRIVATE_SHM] = _mount_private_shm()
    # short: a socket's path is
    config.stash[RUNTIME] = os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(
        prefix="rt", dir="/tmp"
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[RUNTIME], ignore_errors=True)


def _mount_private_shm() -> bool:
    """In a mount namespace of this process and its children.

    False where the system does not allow one.
    """
    clone_newns, ms_nosuid_nodev, ms_rec_private = 0x20000, 2 | 4, 0x4000 | 1 << 18
    libc = ctypes.CDLL(None)
    if not SHM.is_dir() or not hasattr(libc, "unshare") or libc.unshare(clone_newns):
        return False
    if libc.mount(None, b"/", None, ms_rec_private, None):
        # Or what is mounted here would be mounted everywhere
        return False
    return not libc.mount(b"tmpfs", os.fsencode(SHM), b"tmpfs", ms_nosuid_nodev, b"mode=1777")


# ---------------------------------------------------------------------------------------- deadlines


def _poll(predicate: Callable[[], object], seconds: float) -> bool:
    clock = FairClock()
    while not predicate():
        if clock.read() > seconds:
            return False
        time.sleep(POLL_SECONDS)
    return True


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """``wait_until(predicate, seconds=5.0, message="")``: poll until true, fail after so many
    seconds.
    """

    def wait(predicate: Callable[[], object], seconds: float = 5.0, message: str = "") -> None:
        if not _poll(predicate, seconds):
            pytest.fail(f"after {seconds} s still not: {message or predicate}")

    return wait


@pytest.fixture(scope="session")
def within() -> Within:
    """``with within(seconds):`` fails when the block takes longer than that.

    It does not end the block.
    """

    @contextlib.contextmanager
    def measure(seconds: float) -> Iterator[None]:
        clock, done = FairClock(), threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                clock.read()

        watcher = threading.Thread(target=watch, name="within")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        assert clock.read() < seconds

    return measure


# ------------------------------------------------------------------------------------- no_leftovers


@pytest.fixture(scope="session")
def leaving_nothing(
    pytestconfig: pytest.Config,
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """``with leaving_nothing():`` fails when it leaves a process, a thread or a file in /dev/shm.

    Endings get 2 s to show.
    """
    private = pytestconfig.stash[PRIVATE_SHM]

    @contextlib.contextmanager
    def watch() -> Iterator[None]:
        before = find_traces({}, private)
        yield
        left: list[str] = []

        def clean() -> bool:
            left[:] = find_traces(before.processes, private).since(before)
            return not left

        if not _poll(clean, LEFTOVER_SECONDS):
            pytest.fail("left behind:\n  " + "\n  ".join(left))

    return watch


@pytest.fixture(autouse=True)
def no_leftovers(
    leaving_nothing: Callable[[], contextlib.AbstractContextManager[None]],
) -> Iterator[None]:
    """Each test leaves nothing.

    What was there before the test is not its fault, so a pool in a module-wide fixture may live on;
    a worker that such a pool starts anew during a test counts as left by that test.
    """
    with leaving_nothing():
        yield


# --------------------------------------------------------------------------------------- run_script


@dataclass
class Script:
    """A program in a session of its own, in a folder of its own.

    Its output goes to files, so that a survivor that keeps the streams open keeps nobody waiting.
    """

    args: list[str]
    folder: Path
    marker: str
    popen: subprocess.Popen[bytes]
    lost: int = 0

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def session(self) -> int:
        """The session's id, which is the pid of its leader, the program."""
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        return self.popen.poll()

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """But for what the interpreter says of a Ctrl-C that it has lost itself."""
        return LOST.sub("", self._raw_stderr)

    @property
    def _raw_stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def interrupt(self) -> None:
        """Press Ctrl-C, and again while waiting, if CPython loses it in its own callback at the end
        of an import.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)

    def _is_over(self) -> bool:
        if (lost := len(LOST.findall(self._raw_stderr))) > self.lost:
            self.lost = lost
            self.interrupt()
        return self.popen.poll() is not None

    def send_signal(self, number: int) -> None:
        """Signal the program alone, as ``kill`` does; `interrupt` is what Ctrl-C does."""
        self.popen.send_signal(number)

    def wait(self, timeout: float = 30) -> Script:
        """Wait for the program alone, not for what it leaves behind.

        After so many seconds dump its stacks and fail.
        """
        if not _poll(self._is_over, timeout):
            # Faulthandler is on in it and prints every thread's stack
            self.popen.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(5)
            alive = "\n  ".join(map(describe, self.survivors()))
            pytest.fail(
                f"still running after {timeout} s\n{self.stdout}\nstderr:\n{self.stderr}\nalive:\n "
                f" {alive}"
            )
        return self

    def survivors(self) -> list[psutil.Process]:
        """The processes that live on.

        Those of its session, and those that left it but carry its mark.
        """
        return [
            process
            for process in psutil.process_iter()
            if process.pid != self.pid and self._owns(process)
        ]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return (
                os.getsid(process.pid) == self.session
                or process.environ().get(MARKER) == self.marker
            )
        except (psutil.Error, OSError):
            return False

    def kill(self) -> None:
        """End the program and everything that it has left."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        for process in self.survivors():
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.fixture
def start_script(tmp_path: Path) -> Iterator[StartScript]:
    """``start_script(text, *arguments, stdin="", env=None)`` starts a program and returns it,
    running.

    `env` is added to the environment of this process.
    """
    started: list[Script] = []

    def start(
        text: str, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> Script:
        folder = tmp_path / f"script{len(started)}"
        folder.mkdir()
        (folder / "script.py").write_text(text)
        (folder / "stdin").write_text(stdin)
        args = [sys.executable, "-X", "faulthandler", str(folder / "script.py"), *arguments]
        marker = uuid4().hex
        with (
            (folder / "stdin").open("rb") as source,
            (folder / "stdout").open("wb") as out,
            (folder / "stderr").open("wb") as err,
        ):
            popen = subprocess.Popen(
                args,
                cwd=folder,
                env={**os.environ, MARKER: marker, **(env or {})},
                stdin=source,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        started.append(Script(args, folder, marker, popen))
        return started[-1]

    yield start
    for script in started:
        script.kill()


@pytest.fixture
def run_script(start_script: StartScript) -> RunScript:
    """``run_script(text, *arguments, timeout=30, stdin="", env=None)`` runs a program to its end,
    `timeout` in seconds.

    The result has ``returncode, stdout, stderr, pid, session, folder`` and ``survivors()``.
    """

    def run(
        text: str,
        *arguments: str,
        timeout: float = 30,
        stdin: str = "",
        env: dict[str, str] | None = None,
    ) -> Script:
        return start_script(text, *arguments, stdin=stdin, env=env).wait(timeout)

    return run
