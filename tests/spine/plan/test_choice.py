# SPDX-License-Identifier: BSD-3-Clause
"""The choice as a table."""

import pytest

from teamster.errors import UsageError
from teamster.spine.plan.choice import choose


@pytest.mark.parametrize(
    ("backend", "workers", "cores", "inside", "expected"),
    [
        ("auto", None, 8, False, ("process", 8)),
        ("auto", 3, 8, False, ("process", 3)),
        ("auto", None, 1, False, ("serial", 1)),
        ("auto", 1, 8, False, ("serial", 1)),
        ("auto", None, 8, True, ("serial", 1)),
        ("process", None, 8, True, ("process", 8)),
        ("thread", 32, 2, False, ("thread", 32)),
        ("serial", 5, 8, False, ("serial", 1)),
    ],
)
def test_table(backend: str, workers: int | None, cores: int, inside: bool, expected: tuple[str, int]) -> None:
    plan = choose(backend, workers, cores=cores, inside_worker=inside)
    assert (plan.backend, plan.workers) == expected
    assert str(plan) == f"{plan.backend}({plan.workers}): {plan.reason}"


def test_an_unknown_backend_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown backend 'gpu'; known are 'auto', 'serial', 'thread', 'process'"):
        choose("gpu", None, cores=2, inside_worker=False)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_are_counted_from_one(workers: int) -> None:
    with pytest.raises(UsageError, match="workers must be at least 1"):
        choose("process", workers, cores=2, inside_worker=False)
