# SPDX-License-Identifier: BSD-3-Clause
"""The workloads of the regret suite.

On 2 cores the best choice takes about 0.5 to 2.5 s for most of them.
"""

from __future__ import annotations

import json
import math
import os
import random
import sysconfig
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from benchmarks import regret_work as work
from benchmarks.regret_server import slow_server

_SEED = 7
_BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Count = Callable[[int], int]
"""The number of items, scaled."""


@dataclass(frozen=True)
class Task:
    """A workload that is ready to run; `tidy` follows each run, untimed.

    A run that takes longer than `limit_s` fails.
    """

    function: Callable[[Any], Any]
    inputs: Sequence[Any]
    tidy: Callable[[], object] | None = None
    limit_s: float = 600


@dataclass(frozen=True)
class Workload:
    name: str
    make: Callable[[ExitStack, Count], Task]


def no_op(_: ExitStack, count: Count) -> Task:
    return Task(work.same, range(count(100_000)))


def python_loop(additions: int, items: int, _: ExitStack, count: Count) -> Task:
    return Task(work.add, [additions] * count(items))


def sleeps(seconds: float, items: int, _: ExitStack, count: Count) -> Task:
    return Task(work.nap, [seconds] * count(items))


def lognormal(_: ExitStack, count: Count) -> Task:
    """3 ms on average."""
    draw = random.Random(_SEED).lognormvariate
    milliseconds = [draw(math.log(3) - 0.5, 1) for _ in range(count(600))]
    return Task(work.add, [int(work.ADDITIONS_PER_MS * each) for each in milliseconds])


def work_then_waiting(_: ExitStack, count: Count) -> Task:
    half = count(400)
    return Task(work.add_or_nap, [2 * work.ADDITIONS_PER_MS] * half + [0.02] * half)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Here, and in the processes that start from here."""
    import numpy  # noqa: F401 - a library that is not loaded yet is not limited
    from threadpoolctl import threadpool_limits

    with patch.dict(os.environ, dict.fromkeys(_BLAS_VARIABLES, "1")), threadpool_limits(1):
        yield


def dots(size: int, items: int, limited: bool, stack: ExitStack, count: Count) -> Task:
    if limited:
        stack.enter_context(one_blas_thread())
    work.dot(size)
    return Task(work.dot, [size] * count(items))


def large_arguments(_: ExitStack, count: Count) -> Task:
    """Different arrays: one and the same would be sent once by some."""
    return Task(work.statistics_of, [work.random_array(seed) for seed in range(count(30))])


def large_results(_: ExitStack, count: Count) -> Task:
    work.random_array(0)  # loads NumPy here, before the first run
    return Task(work.random_array, range(count(30)))


def folder(stack: ExitStack, inside: Path | None = None) -> Path:
    return Path(stack.enter_context(TemporaryDirectory(prefix="teamster-regret-", dir=inside)))


def in_turn(paths: Sequence[Path], items: int) -> list[str]:
    return [str(paths[number % len(paths)]) for number in range(items)]


def file_writes(stack: ExitStack, count: Count) -> Task:
    """New files in each run, in memory where that is possible.

    A disk that every run writes to sets a pace of its own.
    """
    memory = Path("/dev/shm")
    place = folder(stack, memory if os.access(memory, os.W_OK) else None)

    def tidy() -> None:
        for path in place.iterdir():
            path.unlink()

    return Task(
        work.write_text, [str(place / f"{number}.txt") for number in range(count(3_000))], tidy=tidy
    )


def jpeg(stack: ExitStack, count: Count) -> Task:
    """Soft shapes with some noise, made without NumPy.

    Once it is loaded here, all workers start differently.
    """
    from PIL import Image

    place, draw, size = folder(stack), random.Random(_SEED), (1_500, 1_000)
    for number in range(20):
        shapes = Image.frombytes("RGB", (60, 40), draw.randbytes(7_200)).resize(
            size, Image.Resampling.BICUBIC
        )
        noise = Image.frombytes("RGB", size, draw.randbytes(4_500_000))
        Image.blend(shapes, noise, 0.1).save(place / f"{number}.jpg", quality=85)
    return Task(work.shrink, in_turn(sorted(place.iterdir()), count(80)))


def sources() -> list[Path]:
    """Modules of the standard library, neither tiny nor huge."""
    paths = Path(sysconfig.get_path("stdlib")).glob("*.py")
    return sorted(path for path in paths if 20_000 < path.stat().st_size < 120_000)


def tokens(path: Path) -> list[dict[str, Any]]:
    with tokenize.open(path) as file:
        found = tokenize.generate_tokens(file.readline)
        return [
            {"type": each.type, "string": each.string, "start": each.start, "end": each.end}
            for each in found
        ]


def json_files(stack: ExitStack, count: Count) -> Task:
    place = folder(stack)
    for path in sources()[:40]:
        (place / f"{path.stem}.json").write_text(json.dumps(tokens(path)))
    return Task(work.count_records, in_turn(sorted(place.iterdir()), count(300)))


def regular_expressions(_: ExitStack, count: Count) -> Task:
    return Task(work.count_matches, in_turn(sources(), count(600)))


def downloads(stack: ExitStack, count: Count) -> Task:
    address = stack.enter_context(slow_server())
    work.download(address)
    return Task(work.download, [address] * count(1_000))


def unpicklable(_: ExitStack, count: Count) -> Task:
    """Where the arguments do not pickle, mpire waits for ever; hence the limit."""
    payload = bytes(1 << 20)
    return Task(work.digest, [work.Held(payload) for _ in range(count(2_000))], limit_s=30)


def hashes(items: int, _: ExitStack, count: Count) -> Task:
    return Task(work.digest_of, [bytes(300_000)] * count(items))


def waits_then_computes(items: int, _: ExitStack, count: Count) -> Task:
    return Task(work.nap_and_add, [(0.004, work.ADDITIONS_PER_MS)] * count(items))


WORKLOADS = [
    Workload("no-op", no_op),
    Workload("5 us loop", partial(python_loop, work.ADDITIONS_PER_MS // 200, 200_000)),
    Workload("0.4 ms loop", partial(python_loop, work.ADDITIONS_PER_MS * 2 // 5, 4_000)),
    Workload("100 ms loop", partial(python_loop, work.ADDITIONS_PER_MS * 100, 40)),
    Workload("dot 64x64 (BLAS free)", partial(dots, 64, 100_000, False)),
    Workload("dot 64x64 (BLAS 1)", partial(dots, 64, 100_000, True)),
    Workload("dot 800x800 (BLAS free)", partial(dots, 800, 100, False)),
    Workload("dot 800x800 (BLAS 1)", partial(dots, 800, 100, True)),
    Workload("sleep 1 ms", partial(sleeps, 0.001, 10_000)),
    Workload("sleep 100 ms", partial(sleeps, 0.1, 1_000)),
    Workload("downloads (50 ms)", downloads),
    Workload("file writes", file_writes),
    Workload("JPEG shrink", jpeg),
    Workload("json", json_files),
    Workload("regex", regular_expressions),
    Workload("40 MB in", large_arguments),
    Workload("40 MB out", large_results),
    Workload("lognormal 3 ms", lognormal),
    Workload("2 ms loop then 20 ms sleep", work_then_waiting),
    Workload("unpicklable", unpicklable),
    *(
        Workload(f"0.2 ms of SHA-256 x {items}", partial(hashes, items))
        for items in (100, 300, 1_500)
    ),
    *(
        Workload(
            f"0.9 ms loop x {items}", partial(python_loop, work.ADDITIONS_PER_MS * 9 // 10, items)
        )
        for items in (60, 250, 1_000)
    ),
    *(
        Workload(f"4 ms sleep, 1 ms loop x {items}", partial(waits_then_computes, items))
        for items in (30, 300, 1_200)
    ),
]
"""The last nine are short.

Jobs of 20 ms to 1.5 s, each at three lengths, of which the start of workers is a large part.
"""
