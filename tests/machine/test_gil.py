# SPDX-License-Identifier: BSD-3-Clause
"""The GIL-held share of work whose share is known."""

import ctypes
import hashlib
import io
import json
import random
import re
import threading
import time
import zlib
from collections.abc import Callable

import numpy
import pytest

from teamster.machine.gil import GilSampler, GilShare, is_available

pytestmark = pytest.mark.skipif(
    not is_available(), reason="needs Linux, and an interpreter with a GIL"
)

MEGABYTE = bytes(1_000_000)
RECORDS = {"a": [1, 2, 3.5, "x" * 20] * 300}
TEXT = "lorem ipsum 12 dolor " * 300
SQUARE = numpy.ones((512, 512))

_holding = ctypes.PyDLL(None).usleep  # PyDLL keeps the lock during a call, CDLL lets go of it
_free = ctypes.CDLL(None).usleep


def loop() -> None:
    total = 0
    for number in range(10_000):
        total += number


class Mix:
    """Holds the lock, then lets go of it; on a busy machine either takes longer than it should."""

    def __init__(self, held_us: int, free_us: int) -> None:
        self._held_us, self._free_us = held_us, free_us
        self._held_s = self._free_s = 0.0

    def __call__(self) -> None:
        began = time.perf_counter()
        _holding(self._held_us)
        half = time.perf_counter()
        _free(self._free_us)
        self._held_s += half - began
        self._free_s += time.perf_counter() - half

    def __float__(self) -> float:
        """The share that it was in fact."""
        return self._held_s / (self._held_s + self._free_s)


MIXES = {
    "mix of 20%": Mix(1_000, 4_000),
    "mix of 50%": Mix(2_000, 2_000),
    "mix of 90%": Mix(4_500, 500),
    "mix of 50%, 30 ms": Mix(30_000, 30_000),
}

WORK: dict[str, tuple[Callable[[], object], float | Mix]] = {
    "python loop": (loop, 1.0),
    "json": (lambda: json.dumps(RECORDS), 1.0),
    "re": (lambda: re.findall(r"\d+|[a-z]+", TEXT), 1.0),
    "sleep": (lambda: time.sleep(0.002), 0.0),
    "numpy dot 512": (lambda: SQUARE @ SQUARE, 0.0),
    "sha256 of 1 MB": (lambda: hashlib.sha256(MEGABYTE).digest(), 0.0),
    "zlib of 1 MB": (lambda: zlib.compress(MEGABYTE, 1), 0.0),
    **{name: (mix, mix) for name, mix in MIXES.items()},
}


def measure(work: Callable[[], object], seconds: float = 0.5, samples: int = 1) -> GilShare:
    """The share, from as much time as it takes to look so often.

    On a busy machine the sampler has no processor for long.
    """
    deadline = time.perf_counter() + 60
    share = None
    while (share is None or share.samples < samples) and time.perf_counter() < deadline:
        with GilSampler() as sampler:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                work()
        share, seconds = sampler.share(), 2 * seconds
    assert share is not None
    return share


@pytest.mark.parametrize("name", list(WORK))
def test_share(name: str) -> None:
    work, truth = WORK[name]
    share = measure(work, samples=101)
    assert share.held == pytest.approx(float(truth), abs=max(0.15, 3 * share.error))
    assert share.samples > 100
    assert share.error < 0.2


def test_pillow_decodes_without_the_lock() -> None:
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.fromarray(numpy.random.default_rng(0).integers(0, 255, (600, 600, 3), numpy.uint8)).save(
        buffer, "JPEG"
    )
    assert measure(lambda: image.open(io.BytesIO(buffer.getvalue())).load()).held < 0.4


def test_too_little_tells_nothing() -> None:
    with GilSampler() as sampler:
        pass
    assert sampler.share() is None


def test_the_users_random_numbers_stay() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    measure(lambda: time.sleep(0.001), 0.05)
    assert random.random() == expected


def test_no_thread_is_left_when_the_block_raises() -> None:
    with pytest.raises(KeyError), GilSampler():
        raise KeyError
    assert not [thread for thread in threading.enumerate() if thread.name == "teamster-gil"]


def test_the_thread_leaves_when_there_is_nothing_to_see(wait_until: Callable[..., None]) -> None:
    """An iterator that waits for its consumer keeps neither a thread nor its wake-ups.

    What was seen stays.
    """
    busy = True

    def threads() -> int:
        return sum(thread.name == "teamster-gil" for thread in threading.enumerate())

    with GilSampler(lambda: busy) as sampler:
        wait_until(lambda: sampler.counts()[0] > 4)
        sampler.resume()
        assert threads() == 1
        busy = False
        wait_until(lambda: threads() == 0)
        seen = sampler.counts()[0]
        busy = True
        sampler.resume()
        wait_until(lambda: sampler.counts()[0] > seen)
        assert threads() == 1
    assert threads() == 0
