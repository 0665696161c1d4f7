# SPDX-License-Identifier: BSD-3-Clause
"""Whether reading a sample changes its dataset, as far as a glance shows."""

from __future__ import annotations

from typing import Any

_PLAIN = (int, float, bool, str)
_SIZED = (list, dict, set, bytearray)
_MOST_WRAPPED = 8  # datasets around datasets


def outline_of(dataset: Any) -> list[tuple[str, int, Any]]:
    """What a dataset has, and what those have that it wraps; by identity, and plain values.

    That takes no time with any dataset; whether what it has has changed inside is another question.

    Example:
        >>> outline_of(range(3))
        []
    """
    found = []
    for _ in range(_MOST_WRAPPED):
        own = getattr(dataset, "__dict__", None)
        if not isinstance(own, dict):
            break
        found += [
            (
                name,
                id(value),
                value if type(value) in _PLAIN else len(value) if type(value) in _SIZED else None,
            )
            for name, value in own.items()
        ]
        dataset = own.get("dataset")
    return found
