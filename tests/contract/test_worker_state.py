# SPDX-License-Identifier: BSD-3-Clause
"""What a worker has and knows.

Its initializer's state, who it is, its seeds, its native threads, the caller's context.
"""

import contextvars
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import teamster as ts

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")
state: dict[str, Any] = {}


def remember(value: str) -> None:
    state.setdefault("calls", []).append(value)


def recall(_: int) -> tuple[int, int, list[str]]:
    return os.getpid(), threading.get_ident(), list(state["calls"])


def test_the_initializer_runs_once_per_worker() -> None:
    with ts.Pool("process", workers=2, initializer=remember, initargs=("ready",)) as pool:
        seen = {(pid, tuple(calls)) for pid, _, calls in pool.map(recall, range(200))}
    assert {calls for _, calls in seen} == {("ready",)}


def test_a_failing_initializer_is_told_at_once(backend: str, within: Callable[..., Any]) -> None:
    """Trap 16."""

    def fail() -> None:
        raise ConnectionError("no database")

    pool = ts.Pool(backend, workers=2, initializer=fail)  # type: ignore[arg-type]
    with within(5), pool, pytest.raises(ConnectionError, match="no database") as caught:
        pool.map(abs, range(10))
    assert any("initializer of worker" in note for note in caught.value.__notes__)


def test_a_worker_knows_who_it_is(backend: str) -> None:
    workers = 1 if backend == "serial" else 2
    with ts.Pool(backend, workers=workers) as pool:  # type: ignore[arg-type]
        infos = set(pool.map(lambda _: time.sleep(0.001) or ts.current_worker(), range(30)))
    if backend == "auto":
        assert all(info is not None for info in infos)
        return
    assert all(
        info is not None and info.kind == backend and info.count == workers for info in infos
    )
    assert {info.index for info in infos if info} <= set(range(workers))
    assert ts.current_worker() is None


def test_nested_use_is_serial_unless_asked(pool: ts.Pool) -> None:
    """Trap 31; an item that the caller runs has no worker beside it, so there a pool may choose."""
    seen = set(pool.map(lambda _: (ts.current_worker().kind, ts.Pool().plan.backend), range(4)))  # type: ignore[union-attr]
    assert seen <= {
        ("serial", "auto"),
        ("thread", "serial"),
        ("process", "serial"),
        ("pipe", "serial"),
    }
    assert pool.map(lambda n: sum(ts.map(abs, [n, -n])), [1, 2]) == [2, 4]
    assert pool.map(lambda n: ts.map(abs, [-n], backend="process", workers=1), [1, 2]) == [[1], [2]]


def test_a_task_that_waits_for_its_own_pool_is_told_so() -> None:
    with (
        ts.Pool("thread", workers=1) as pool,
        pytest.raises(ts.UsageError, match="waits for the pool that runs it"),
    ):
        pool.map(lambda n: pool.map(abs, [n]), [1])


def draw(_: int) -> tuple[float, float]:
    import numpy as np

    return random.random(), float(np.random.rand())


def test_seeded_numbers_repeat_whatever_runs_them() -> None:
    """Trap 34."""
    pytest.importorskip("numpy")
    import numpy.random  # noqa: F401

    random.seed(1)
    expected = ts.map(draw, range(12), backend="serial", seed=7)
    assert len(set(expected)) == 12
    after = random.random()
    random.seed(1)
    assert random.random() == after  # the caller's own generator is as it was
    for workers in (1, 2, 4):
        with ts.Pool("process", workers=workers) as pool:
            for chunksize in (None, 1, 5):
                assert pool.map(draw, range(12), chunksize=chunksize, seed=7) == expected
    assert ts.map(draw, range(12), backend="process", workers=2, seed=8) != expected


def test_a_seed_in_several_threads_is_refused() -> None:
    with pytest.raises(ts.UsageError, match="several threads"):
        ts.map(draw, range(3), backend="thread", workers=2, seed=1)


def test_workers_without_a_seed_differ() -> None:
    """Trap 34."""
    with ts.Pool("process", workers=2) as pool:
        assert len(set(pool.map(lambda _: random.random(), range(50)))) == 50


def test_native_threads_of_process_workers() -> None:
    """Trap 32: the variables stand before any library loads."""
    with ts.Pool("process", workers=64) as pool:
        seen = set(
            pool.map(
                lambda _: (
                    os.environ["OMP_NUM_THREADS"],
                    os.environ["OPENBLAS_NUM_THREADS"],
                    "numpy" in sys.modules,
                ),
                [1],
            )
        )
    assert seen == {("1", "1", False)}


def test_torch_threads(backend: str) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    if backend in ("serial", "auto"):
        pytest.skip("the caller keeps its own threads")

    def threads(_: int) -> int:
        import torch

        return int(torch.get_num_threads())

    with ts.Pool(backend, workers=64) as pool:  # type: ignore[arg-type]
        assert set(pool.map(threads, range(3))) == {1}
    assert torch.get_num_threads() == before


def test_context_variables_keep_default_and_name_wherever_they_are_held(pool: ts.Pool) -> None:
    class Holder:
        depth = contextvars.ContextVar("depth of it", default=3)

    table = {"mode": contextvars.ContextVar("mode", default="usual")}

    def look(_: int) -> tuple[Any, ...]:
        return Holder.depth.get(), Holder.depth.name, table["mode"].get(), request_id.get()

    assert pool.map(look, range(3)) == [(3, "depth of it", "usual", "none")] * 3
    token = table["mode"].set("special")
    assert pool.map(look, range(3)) == [(3, "depth of it", "special", "none")] * 3
    table["mode"].reset(token)
    assert pool.map(look, range(3)) == [(3, "depth of it", "usual", "none")] * 3


def test_the_callers_context_is_visible(pool: ts.Pool) -> None:
    """Trap 39: also in workers that were started before it was set."""
    pool.map(abs, range(4))
    token = request_id.set("r-17")
    try:
        assert set(pool.map(lambda _: request_id.get(), range(6))) == {"r-17"}
        assert pool.submit(request_id.get).result() == "r-17"
    finally:
        request_id.reset(token)
    assert set(pool.map(lambda _: request_id.get(), range(6))) == {"none"}


def test_tensors_and_arrays_round_trip() -> None:
    torch, np = pytest.importorskip("torch"), pytest.importorskip("numpy")
    with ts.Pool("process", workers=2) as pool:
        tensors = pool.map(
            lambda t: t * 2,
            [
                torch.ones(100_000, dtype=dtype)
                for dtype in (torch.float32, torch.bfloat16, torch.int64)
            ],
        )
        assert [tensor.dtype for tensor in tensors] == [torch.float32, torch.bfloat16, torch.int64]
        assert all(bool((tensor == 2).all()) for tensor in tensors)
        fortran = np.asfortranarray(np.arange(200_000.0).reshape(400, 500))
        fortran.setflags(write=False)
        back = pool.map(lambda array: array + 1, [fortran, fortran[::2]])
        assert (back[0] == fortran + 1).all()
        assert (back[1] == fortran[::2] + 1).all()
        assert pool.report().arena_bytes > 3_000_000


def test_what_the_function_carries_travels_once_per_worker() -> None:
    np = pytest.importorskip("numpy")
    big = np.ones(2_000_000)
    with ts.Pool("process", workers=2) as pool:
        assert pool.map(lambda index: float(big[index]), range(500), chunksize=1) == [1.0] * 500
        assert pool.report().pickled_bytes < 1_000_000
        assert pool.report().arena_bytes <= 3 * big.nbytes


def keep(array: Any) -> None:
    state["array"] = array


def file_of_the_array(_: int) -> tuple[int, str, float]:
    """The process, the file that the memory of its array is of, and a sum that only it has."""
    array = state["array"]
    address = array.__array_interface__["data"][0]
    places = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (inode,) = (
        place[4]
        for place in places
        if int(place[0].split("-")[0], 16) <= address < int(place[0].split("-")[1], 16)
    )
    array += os.getpid()
    return os.getpid(), inode, float(array[0])


def test_initargs_are_in_memory_once_for_all_workers() -> None:
    array = np.zeros(1_000_000)
    with ts.Pool("process", workers=3, initializer=keep, initargs=(array,)) as pool:
        seen = pool.map(file_of_the_array, range(3), chunksize=1)
        while len({pid for pid, _, _ in seen}) < 2:
            seen += pool.map(file_of_the_array, range(30), chunksize=1)
        moved = pool.report().arena_bytes
    assert len({inode for _, inode, _ in seen}) == 1
    assert array.nbytes <= moved < 2 * array.nbytes
    assert all(number % pid == 0 for pid, _, number in seen)
