# SPDX-License-Identifier: BSD-3-Clause
"""Real control groups for the tests of the laws, where the system lets this user make them."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")

MakeCgroup = Callable[..., Path]


@pytest.fixture
def cgroup(wait_until: Callable[..., None]) -> Iterator[MakeCgroup]:
    """``cgroup(controller, file_of_v1, file_of_v2, value)`` makes a group.

    A process joins by its ``cgroup.procs``.
    """
    made: list[Path] = []

    def make(controller: str, file_v1: str, file_v2: str, value: str) -> Path:
        parent, file = (
            (ROOT / controller, file_v1) if (ROOT / controller).is_dir() else (ROOT, file_v2)
        )
        folder = parent / f"teamster-test-{os.getpid()}-{len(made)}"
        try:
            folder.mkdir()
            made.append(folder)
            (folder / file).write_text(value)
        except OSError as reason:
            pytest.skip(f"no cgroup can be made here: {reason}")
        return folder

    yield make
    for folder in made:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda folder=folder: _remove(folder), seconds=5.0, message=f"{folder} is empty")


def _remove(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()
