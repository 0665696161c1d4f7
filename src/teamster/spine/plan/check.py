# SPDX-License-Identifier: BSD-3-Clause
"""What a number must be; callers may pass anything, whatever the annotations say."""

from __future__ import annotations


def is_count(value: object, least: int) -> bool:
    """Whether `value` is an integer (True is none) of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
