# SPDX-License-Identifier: BSD-3-Clause
"""What simple theory expects."""

import pytest

from teamster.cli.lab.experiments import EXPERIMENTS


@pytest.mark.parametrize(
    ("name", "case", "backend", "workers", "budget", "gil", "expected"),
    [
        ("download", 0, "thread", 4, 2.0, True, 4.0),
        ("download", 0, "process", 4, 2.0, True, 4.0),
        ("write", 0, "thread", 4, 2.0, True, 2.0),
        ("write", 0, "process", 2, 1.5, True, 1.5),
        ("write", 0, "process", 2, 0.5, True, 1.0),
        ("loop", 0, "thread", 4, 8.0, True, 1.0),
        ("loop", 0, "thread", 4, 8.0, False, 4.0),
        ("loop", 0, "process", 4, 2.0, True, 2.0),
        ("dot", 0, "thread", 4, 8.0, True, 1.0),
        ("dot", 1, "thread", 4, 8.0, True, 4.0),
    ],
)
def test_expectations(
    name: str, case: int, backend: str, workers: int, budget: float, gil: bool, expected: float
) -> None:
    assert EXPERIMENTS[name].cases[case].expect(backend, workers, budget, gil) == expected


def test_inputs_fit_the_functions() -> None:
    (download,) = EXPERIMENTS["download"].cases
    assert download.make_input(7, "http://127.0.0.1:80", 2) == "http://127.0.0.1:80/page/7"
    free, fixed = EXPERIMENTS["dot"].cases
    assert free.make_input(0, "", 6)[1] == 6
    assert fixed.make_input(0, "", 6)[1] == 1
