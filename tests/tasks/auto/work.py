# SPDX-License-Identifier: BSD-3-Clause
"""What items do in tests of the choice: they compute, or wait."""

import time


def burn(steps: int) -> int:
    total = 0
    for step in range(steps):
        total += step
    return total


def burst(_: object) -> int:
    return burn(20_000)  # about a millisecond


def wait(_: object) -> None:
    time.sleep(0.01)
