# SPDX-License-Identifier: BSD-3-Clause
"""Figures as people read them."""

import pytest

from teamster.units import show_bytes, show_seconds

GIB = 2**30


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1010 * 1024, "1010.0 KiB"),
        (GIB, "1.0 GiB"),
        (3 * 2**42, "12.0 TiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert show_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (61.0, "61 s"),
        (2.5, "2.5 s"),
        (0.0042, "4.2 ms"),
        (1e-6, "1 us"),
        (1.5e-8, "15 ns"),
        (0.0, "0 ns"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
