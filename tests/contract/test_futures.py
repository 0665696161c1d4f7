# SPDX-License-Identifier: BSD-3-Clause
"""`submit` and `executor`: real futures."""

import asyncio
import concurrent.futures as cf
import threading
import time

import pytest

import teamster as ts


def test_submit(pool: ts.Pool) -> None:
    assert pool.submit(pow, 2, 10).result(timeout=10) == 1024
    assert pool.submit(int, "ff", base=16).result() == 255


def test_wait_and_as_completed(pool: ts.Pool) -> None:
    futures = [pool.submit(abs, -n) for n in range(50)]
    done, not_done = cf.wait(futures, timeout=10)
    assert not not_done
    assert sorted(future.result() for future in cf.as_completed(futures)) == list(range(50))
    assert len(done) == 50


def test_exceptions_arrive(pool: ts.Pool) -> None:
    assert isinstance(pool.submit(int, "x").exception(), ValueError)
    with pytest.raises(ValueError, match="invalid literal"):
        pool.submit(int, "x").result()


def test_callbacks_need_nobody_who_waits(pool: ts.Pool) -> None:
    called = threading.Event()
    pool.submit(abs, -1).add_done_callback(lambda _: called.set())
    assert called.wait(10)


def test_asyncio(pool: ts.Pool) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        through = await loop.run_in_executor(pool.executor(), abs, -5)
        direct = await loop.run_in_executor(pool, abs, -6)  # type: ignore[arg-type]
        return [through, direct, await asyncio.wrap_future(pool.submit(abs, -7))]

    assert asyncio.run(main()) == [5, 6, 7]


def test_result_gives_up_after_its_timeout(backend: str) -> None:
    if backend == "serial":
        pytest.skip("serial futures are done when submit returns")
    with ts.Pool(backend, workers=1) as pool:  # type: ignore[arg-type]
        future = pool.submit(time.sleep, 0.3)
        with pytest.raises(cf.TimeoutError):
            future.result(timeout=0.01)
        assert future.result(timeout=10) is None


def test_cancel_before_the_start(backend: str) -> None:
    if backend == "serial":
        pytest.skip("serial futures are done when submit returns")
    with ts.Pool(backend, workers=1) as pool:  # type: ignore[arg-type]
        first = [pool.submit(time.sleep, 0.2) for _ in range(3)]
        last = pool.submit(time.sleep, 60)
        assert last.cancel()
        assert last.cancelled()
        assert [future.result() for future in first] == [None] * 3


def test_terminate_fails_what_is_open() -> None:
    pool = ts.Pool("process", workers=1)
    future = pool.submit(time.sleep, 60)
    pool.terminate()
    assert future.cancelled() or isinstance(future.exception(), ts.PoolClosed)


def test_close_waits_for_open_futures(backend: str) -> None:
    with ts.Pool(backend, workers=2) as pool:  # type: ignore[arg-type]
        futures = [pool.submit(lambda n: time.sleep(0.02) or n, n) for n in range(6)]
    assert [future.result() for future in futures] == list(range(6))


def test_executor(pool: ts.Pool) -> None:
    with pool.executor() as executor:
        assert isinstance(executor, cf.Executor)
        assert list(executor.map(pow, [2, 3], [5, 2], timeout=10)) == [32, 9]
        future = executor.submit(abs, -1)
    assert future.result() == 1
    with pytest.raises(ts.PoolClosed):
        executor.submit(abs, 1)


def test_shutdown_cancels_what_has_not_started() -> None:
    with ts.Pool("process", workers=1) as pool:
        executor = pool.executor()
        futures = [executor.submit(time.sleep, 0.05) for _ in range(20)]
        executor.shutdown(cancel_futures=True)
        assert any(future.cancelled() for future in futures)
        assert all(future.done() for future in futures)


def test_scipy_takes_the_pools_map() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    with ts.Pool("process", workers=2) as pool:
        found = optimize.differential_evolution(
            lambda x: float((x[0] - 1) ** 2),
            [(-5, 5)],
            workers=pool.map,
            updating="deferred",
            seed=1,
            maxiter=20,
        )
    assert abs(found.x[0] - 1) < 0.01


def test_futures_of_several_threads(pool: ts.Pool) -> None:
    results: list[int] = []

    def work() -> None:
        for number in range(50):
            results.append(pool.submit(abs, -number).result())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(50)) * 4)


def test_submit_and_map_together(pool: ts.Pool) -> None:
    futures = [pool.submit(abs, -n) for n in range(20)]
    assert pool.map(abs, range(100)) == list(range(100))
    assert [future.result() for future in futures] == list(range(20))
