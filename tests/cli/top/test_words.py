# SPDX-License-Identifier: BSD-3-Clause
"""Numbers in few letters."""

import pytest

from teamster.cli.top.answers import CallSeen
from teamster.cli.top.rates import CallView
from teamster.cli.top.words import make_plain, say_done, say_rate, say_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (3599.6, "1:00:00"),
        (86399.9, "1 d 00 h"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert say_seconds(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0.0/s"),
        (0.01, "0.6/min"),
        (0.96, "1.0/s"),
        (99.9, "99.9/s"),
        (99.96, "100/s"),
        (999_949, "999,949/s"),
        (1e6, "1.0M/s"),
    ],
)
def test_rates(rate: float, text: str) -> None:
    assert say_rate(rate) == text


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        ([], "idle"),
        ([(999, 1000)], "99%"),
        ([(1, 2), (3, 6)], "50%"),
        ([(1, 2), (1500, None)], "1,501"),
        ([(0, 0)], "0"),
    ],
)
def test_how_far_calls_are(calls: list[tuple[int, int | None]], text: str) -> None:
    assert (
        say_done(CallView(CallSeen("f", done, total, 1.0), 0.0, None) for done, total in calls)
        == text
    )


def test_plain_letters() -> None:
    assert make_plain("█░·▶…─é") == "#-.>~-?"
