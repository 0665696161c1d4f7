# SPDX-License-Identifier: BSD-3-Clause
"""The functions of the regret suite; in a module of their own, so that every peer can pickle them.

A library is imported by the function that needs it: every new process worker of every workload
loads this module.
"""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

ADDITIONS_PER_MS = 36_000

_TEXT = "a line of a text as long as the pages of a book are, give or take a few words.\n" * 2_530
_DEFINITION = r"(?m)^\s*(?:def|class)\s+(\w+)|(\w+)\.(\w+)\(|#\s*(.*)$"


def same(x: Any) -> Any:
    return x


def add(additions: int) -> int:
    """Pure Python, a fixed amount of work.

    A burn until some clock says so would take waiting for work.
    """
    total = 0
    for number in range(additions):
        total += number
    return total


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def add_or_nap(step: float) -> float:
    """As many additions as an integer says, or as many seconds of sleep as a float does.

    Mpire would unpack a tuple.
    """
    return add(step) if isinstance(step, int) else nap(step)


@cache
def matrix(size: int) -> Any:
    import numpy as np

    return np.random.default_rng(size).random((size, size))


def dot(size: int) -> float:
    square = matrix(size)
    return float((square @ square)[0, 0])


def statistics_of(array: Any) -> float:
    """Several passes over the array."""
    return float(array.sum() + array.std() + array.min() + array.max() + abs(array).sum())


def random_array(seed: int) -> Any:
    """40 MB."""
    import numpy as np

    return np.random.default_rng(seed).standard_normal(5_000_000)


def write_text(path: str) -> int:
    """200 KB."""
    with open(path, "w", encoding="utf-8") as file:
        return file.write(_TEXT)


def shrink(path: str) -> tuple[int, int]:
    """Decode a JPEG file and make it a fifth as wide."""
    from PIL import Image

    with Image.open(path) as image:
        return image.resize((image.width // 5, image.height // 5), Image.Resampling.LANCZOS).size


def count_records(path: str) -> int:
    import json

    with open(path, "rb") as file:
        return len(json.load(file))


def count_matches(path: str) -> int:
    import re

    with open(path, encoding="utf-8", errors="replace") as file:
        return len(re.findall(_DEFINITION, file.read()))


class Held:
    """A payload beside a lock, which no pickle takes."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.lock = threading.Lock()


def digest(held: Held) -> str:
    import hashlib

    return hashlib.sha256(held.payload).hexdigest()


@cache
def _opener() -> OpenerDirector:
    from urllib.request import ProxyHandler, build_opener

    # Whatever proxy the environment names, it is not asked for a loopback address
    return build_opener(ProxyHandler({}))


def download(url: str) -> int:
    with _opener().open(url) as response:
        return len(response.read())


def digest_of(data: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(data).digest()


def nap_and_add(item: tuple[float, int]) -> int:
    seconds, additions = item
    time.sleep(seconds)
    return add(additions)
