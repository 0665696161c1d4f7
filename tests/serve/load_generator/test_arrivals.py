# SPDX-License-Identifier: BSD-3-Clause
"""When requests are due."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev

import pytest

from teamster.errors import UsageError
from teamster.serve.load_generator.arrivals import arrivals_of


def test_poisson() -> None:
    moments = list(arrivals_of("poisson", 100, 100, seed=3))
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert moments == sorted(moments)
    assert mean(gaps) == pytest.approx(0.01, rel=0.05)
    assert pstdev(gaps) == pytest.approx(0.01, rel=0.05)  # as large as the mean: no memory
    assert moments == list(arrivals_of("poisson", 100, 100, seed=3))
    assert moments != list(arrivals_of("poisson", 100, 100, seed=4))


def test_bursts_have_the_rate_too() -> None:
    moments = list(arrivals_of("burst:20", 100, 100))
    assert len(moments) == pytest.approx(10_000, rel=0.1)
    assert all(moments.count(each) == 20 for each in set(moments[:200]))


def test_a_recorded_trace(tmp_path: Path) -> None:
    file = tmp_path / "moments"
    file.write_text("1700000002.5\n1700000000\n1700000001\n1700000099\n")
    assert list(arrivals_of(str(file), 1, 10)) == [0.0, 1.0, 2.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("burst", "a burst has a size"),
        ("burst:0", "a burst has a size"),
        ("often", "arrivals are poisson, uniform, burst:N, or a file"),
    ],
)
def test_none_of_these(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arrivals_of(name, 1, 1)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_text("a b\n")
    with pytest.raises(UsageError, match="each line is a moment in seconds"):
        arrivals_of(str(file), 1, 1)
