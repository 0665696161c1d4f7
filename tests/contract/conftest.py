# SPDX-License-Identifier: BSD-3-Clause
"""One contract, every kind of worker.

``serial`` is the reference, ``pipe`` (pipe_workers.py) what a third party would write.
"""

from collections.abc import Iterator

import pytest

import teamster as ts
from teamster.kinds import KINDS, Kind

PIPE = Kind(
    "pipe",
    "tests.contract.pipe_workers:PipeBackend",
    can_kill=True,
    by_pickle=True,
    in_program=False,
    chosen=False,
)


@pytest.fixture(params=["serial", "thread", "process", "auto", "pipe"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "pipe":
        monkeypatch.setitem(KINDS, "pipe", PIPE)
    return name


@pytest.fixture
def pool(backend: str) -> Iterator[ts.Pool]:
    """A pool of two workers, which works as new after every test."""
    with ts.Pool(backend, workers=2) as pool:  # type: ignore[arg-type]
        yield pool
        assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))  # trap 42
