# SPDX-License-Identifier: BSD-3-Clause
"""Models that kill their process; without torch, so that the next one is there soon."""

from __future__ import annotations

import os
import signal
import time


def deadly(number: int) -> list[int]:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return [number, os.getpid()]


def deadly_batch(numbers: list[int]) -> list[list[int]]:
    return [deadly(number) for number in numbers]
