# SPDX-License-Identifier: BSD-3-Clause
"""`map`, `starmap`, `imap`, `imap_unordered`: order, bounds, the input's life."""

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import teamster as ts
from tests.conftest import WaitUntil


def test_map_keeps_the_order(pool: ts.Pool) -> None:
    assert pool.map(lambda n: n * n, range(1_000)) == [n * n for n in range(1_000)]


def test_map_of_nothing(pool: ts.Pool) -> None:
    assert pool.map(abs, []) == []
    assert list(pool.imap(abs, iter(()))) == []


def test_several_iterables_are_zipped(pool: ts.Pool) -> None:
    assert pool.map(pow, [2, 3, 4], itertools.count(1)) == [2, 9, 64]
    assert list(pool.imap(pow, [2, 3], [5, 2])) == [32, 9]


def test_starmap(pool: ts.Pool) -> None:
    assert pool.starmap(pow, [(2, 5), (3, 2)] * 200) == [32, 9] * 200


@pytest.mark.parametrize("chunksize", [1, 7, 1_000])
def test_an_explicit_chunk_changes_nothing_but_speed(pool: ts.Pool, chunksize: int) -> None:
    assert pool.map(str, range(100), chunksize=chunksize) == [str(n) for n in range(100)]


def test_a_hundred_thousand_tiny_items(pool: ts.Pool) -> None:
    assert pool.map(lambda n: n, range(100_000)) == list(range(100_000))


def test_an_endless_input_works(pool: ts.Pool) -> None:
    assert list(itertools.islice(pool.imap(lambda n: n + 1, itertools.count()), 500)) == list(
        range(1, 501)
    )


def test_unordered_has_every_result_once(pool: ts.Pool) -> None:
    assert sorted(pool.imap_unordered(lambda n: n, range(3_000))) == list(range(3_000))


def test_unordered_does_not_wait_for_the_slow_one(backend: str, tmp_path: Path) -> None:
    if backend in ("serial", "auto"):
        pytest.skip("the caller, who runs the first item, does one thing after the other")

    def run(number: int) -> int:
        deadline = time.monotonic() + 10
        while number == 0 and not (tmp_path / "go on").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        return number

    with ts.Pool(backend, workers=2) as pool:  # type: ignore[arg-type]
        results = pool.imap_unordered(run, range(4))
        assert sorted(itertools.islice(results, 3)) == [1, 2, 3]
        (tmp_path / "go on").touch()
        assert list(results) == [0]


class Watched:
    """An input that notes where it is advanced and closed."""

    def __init__(self, items: Any) -> None:
        self.items = items
        self.pulled = 0
        self.threads: set[int] = set()
        self.closed_in: int | None = None

    def generate(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.pulled += 1
                self.threads.add(threading.get_ident())
                yield item
        finally:
            self.closed_in = threading.get_ident()


def test_a_result_does_not_wait_for_its_neighbour(backend: Any, tmp_path: Path) -> None:
    """Both are in one batch, and the second goes on when the first was seen."""
    if backend in ("serial", "auto"):
        pytest.skip("the caller, who runs the first item, does one thing after the other")

    def run(number: int) -> int:
        deadline = time.monotonic() + 10
        while number and not (tmp_path / "seen").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        return number + (tmp_path / "seen").exists() * 10

    with ts.Pool(backend, workers=1) as pool:
        results = pool.imap(run, range(2), chunksize=2)
        assert next(results) == 0
        (tmp_path / "seen").touch()
        assert next(results) == 11


def test_the_input_lives_in_the_callers_thread_only(pool: ts.Pool) -> None:
    """Trap 18."""
    watched = Watched(range(2_000))
    assert pool.map(abs, watched.generate()) == list(range(2_000))
    assert watched.threads == {threading.get_ident()}


def test_leaving_early_closes_the_input_here_and_now(pool: ts.Pool) -> None:
    """Trap 20."""
    watched = Watched(itertools.count())
    results = pool.imap(abs, watched.generate())
    for result in results:
        if result == 3:
            break
    results.close()
    assert watched.closed_in == threading.get_ident()


def test_dropping_the_iterator_cancels(pool: ts.Pool) -> None:
    """Trap 21."""
    watched = Watched(itertools.count())
    results = pool.imap(abs, watched.generate())
    assert next(results) == 0
    del results
    assert watched.closed_in is not None


def test_a_stream_lets_go_of_what_it_has_given(pool: ts.Pool, wait_until: WaitUntil) -> None:
    for array in pool.imap(np.ones, range(1, 9)):
        given = weakref.ref(array)
        del array
        wait_until(lambda given=given: gc.collect() >= 0 and given() is None)  # type: ignore[misc]


def test_a_slow_consumer_holds_the_input_back(pool: ts.Pool) -> None:
    """Trap 22: nobody but `next` pulls, and never far ahead of what was taken."""
    watched = Watched(range(100_000))
    results = pool.imap(lambda n: time.sleep(0.001) or n, watched.generate())
    for taken in range(1, 40):
        next(results)
        assert watched.pulled - taken <= 200
    results.close()


def test_the_first_result_does_not_wait_for_a_slow_input(pool: ts.Pool) -> None:
    """Trap 19: an input that takes its time is handed on item by item."""
    started: list[int] = []

    def slow() -> Iterator[int]:
        for number in range(400):  # for 20 s: a worker may take its time to start
            started.append(number)
            yield number
            time.sleep(0.05)

    with pool.imap(abs, slow()) as results:
        assert [next(results), next(results)] == [0, 1]
        assert len(started) < 400


def test_results_before_an_error_of_the_input_arrive(pool: ts.Pool) -> None:
    """Trap 19."""

    def broken() -> Iterator[int]:
        yield from range(7)
        raise OSError("the input broke")

    seen = []
    with pytest.raises(OSError, match="the input broke"):
        for result in pool.imap(abs, broken()):
            seen.append(result)
    assert seen == list(range(7))
    with pytest.raises(OSError, match="the input broke"):
        pool.map(abs, broken())


def test_an_input_may_use_the_pool_itself(pool: ts.Pool) -> None:
    """Trap 19: re-entrant."""
    assert pool.map(abs, (value for value in pool.imap(abs, range(-5, 0)))) == [5, 4, 3, 2, 1]


def test_two_streams_at_once(pool: ts.Pool) -> None:
    """Trap 21."""
    left, right = pool.imap(abs, range(200)), pool.imap(str, range(200))
    assert list(zip(left, right, strict=True)) == [(n, str(n)) for n in range(200)]


def test_several_threads_share_a_pool(pool: ts.Pool) -> None:
    results: dict[int, list[int]] = {}

    def work(shift: int) -> None:
        results[shift] = pool.map(lambda n: n + shift, range(300))

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {shift: [n + shift for n in range(300)] for shift in range(6)}


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_many_threads_share_a_pool(kind: str) -> None:
    """Callers take turns to hand out items.

    One that was asked and had none, since it was done, kept the turn, and all hung.
    """
    results: list[list[int]] = []
    with ts.Pool(kind, workers=2) as pool:  # type: ignore[arg-type]

        def work() -> None:
            for _ in range(3):
                results.append(pool.map(abs, range(-20, 0)))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [list(range(20, 0, -1))] * 90


def test_several_threads_share_a_stream(pool: ts.Pool) -> None:
    results = pool.imap(abs, range(500))
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.extend(results)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(500))


def test_unstarted_items_leave_a_stuck_worker(backend: str, tmp_path: Path) -> None:
    """One item takes until all others have run.

    Those handed to the same worker with it are run by the other meanwhile.
    """
    if backend in ("serial", "auto"):
        pytest.skip("the caller, who runs the first items, does one thing after the other")
    if backend == "pipe":
        pytest.skip("such a worker gives back nothing of what it was handed")

    def run(number: int) -> bool:
        deadline = time.monotonic() + 10
        while (
            number == 5 and (tmp_path / "ran").stat().st_size < 199 and time.monotonic() < deadline
        ):
            time.sleep(0.001)
        with open(tmp_path / "ran", "ab", buffering=0) as ran:
            ran.write(b".")
        return time.monotonic() < deadline

    (tmp_path / "ran").touch()
    with ts.Pool(backend, workers=2) as pool:  # type: ignore[arg-type]
        assert list(pool.imap_unordered(run, range(200), chunksize=20)) == [True] * 200


def test_what_waits_behind_a_slow_item_of_the_caller_is_run_first() -> None:
    with ts.Pool(workers=2) as pool:
        results = pool.imap_unordered(
            lambda n: time.sleep(1.0 if n == 5 else 0.001) or n, range(200), chunksize=20
        )
        assert list(results)[-1] == 5


BAD: list[tuple[Callable[[ts.Pool], object], str]] = [
    (lambda pool: pool.map(abs, [1], chunksize=0), "chunksize must be at least 1, not 0"),
    (lambda pool: pool.map(abs, [1], chunksize=-3), "chunksize must be at least 1, not -3"),
    (lambda pool: pool.map(abs, [1], on_error="ignore"), "on_error must be 'raise' or 'return'"),  # type: ignore[arg-type]
    (lambda pool: pool.map(7, [1]), "must be a function, not int 7"),  # type: ignore[arg-type]
    (lambda pool: pool.submit("abs", 1), "must be a function, not str"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_refused_in_one_line(
    pool: ts.Pool, call: Callable[[ts.Pool], object], message: str
) -> None:
    with pytest.raises(ts.UsageError, match=message) as caught:
        call(pool)
    assert "\n" not in str(caught.value)


def test_a_pool_cannot_be_sent_to_a_worker() -> None:
    with (
        ts.Pool("process", workers=1) as pool,
        pytest.raises(ts.TransferError, match="open a pool of its own"),
    ):
        pool.map(lambda _: pool, [1])
