# SPDX-License-Identifier: BSD-3-Clause
"""One contract, every kind of worker; ``serial`` is the reference."""

from collections.abc import Iterator

import pytest

import teamster as ts


@pytest.fixture(params=["serial", "thread", "process", "auto"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def pool(backend: str) -> Iterator[ts.Pool]:
    """A pool of two workers, which works as new after every test."""
    with ts.Pool(backend, workers=2) as pool:  # type: ignore[arg-type]
        yield pool
        assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))  # trap 42
