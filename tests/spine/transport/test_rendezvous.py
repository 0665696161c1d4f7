# SPDX-License-Identifier: BSD-3-Clause
"""Programs of one user find each other by a name."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from teamster.errors import UsageError
from teamster.spine.transport.rendezvous import Claim, claim
from tests.conftest import StartScript, WaitUntil

HAS_THE_NAME = """
import sys, time
from teamster.spine.transport.rendezvous import claim
mine = claim("test")
print(type(mine).__name__, flush=True)
time.sleep(120)
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rv") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield Path(runtime) / "teamster"


def test_one_has_the_name_and_others_reach_it(folder: Path) -> None:
    mine, other = claim("test"), claim("another-test")
    assert isinstance(mine, Claim)
    assert isinstance(other, Claim)
    theirs = claim("test")
    assert isinstance(theirs, socket.socket)
    end, _ = mine.listener.accept()
    theirs.send(b"!")
    assert end.recv(1) == b"!"
    (path,) = folder.glob("test@*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for each in (end, theirs, mine, other):
        each.close()
    assert list(folder.iterdir()) == []


def test_a_name_is_free_when_its_program_was_killed(
    start_script: StartScript, folder: Path, wait_until: WaitUntil
) -> None:
    script = start_script(HAS_THE_NAME)
    wait_until(lambda: script.stdout == "Claim\n", 30)
    reached = claim("test")
    assert isinstance(reached, socket.socket)
    script.send_signal(signal.SIGKILL)
    script.wait()
    with contextlib.suppress(ConnectionResetError):  # it had not accepted it
        assert reached.recv(1) == b""
    reached.close()
    mine = claim("test")
    assert isinstance(mine, Claim)
    wait_until(lambda: len(list(folder.iterdir())) == 1, 10)
    mine.close()


def test_what_is_dead_is_taken_away(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "test@1"))
    dead.close()
    mine = claim("test")
    assert [path.name for path in folder.iterdir()] == [f"test@{os.getpid()}"]
    mine.close()


@pytest.mark.parametrize("name", ["", "a/b", "a b", "..@", "x" * 120])
def test_names_that_are_none(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        claim(name)


def test_a_folder_that_others_can_use_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UsageError, match="not a folder of this user's alone"):
        claim("test")
