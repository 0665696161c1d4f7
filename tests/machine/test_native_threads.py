# SPDX-License-Identifier: BSD-3-Clause
"""Thread limits of native libraries.

Stand-ins for the rules, the real NumPy and torch for the truth.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from teamster.machine import native_threads
from teamster.machine.native_threads import (
    THREAD_VARIABLES,
    ProcessWideLimit,
    environment,
    limit_in_this_thread,
)

if TYPE_CHECKING:
    from tests.conftest import Within


@dataclass
class FakeLibrary:
    """A thread pool as threadpoolctl shows it."""

    user_api: str
    filepath: str
    num_threads: int | None

    def set_num_threads(self, num_threads: int) -> None:
        self.num_threads = num_threads


class FakeTorch:
    """Keeps one number, as torch does for threads that start to use it."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def get_num_threads(self) -> int:
        return self.threads

    def set_num_threads(self, threads: int) -> None:
        self.threads = threads


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeLibrary]]:
    """Replace what is loaded by an OpenMP and a BLAS of eight threads each, and torch by none."""
    found = [
        FakeLibrary("openmp", "/lib/libgomp.so", 8),
        FakeLibrary("blas", "/lib/libopenblas.so", 8),
    ]
    monkeypatch.setattr(native_threads, "_libraries", lambda: found)
    monkeypatch.setattr(native_threads, "_torch_default", None)
    monkeypatch.setattr(native_threads, "_this_thread", SimpleNamespace())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield found
    assert native_threads._active == []
    assert native_threads._changed == {}


def counts(libraries: list[FakeLibrary]) -> list[int | None]:
    return [library.num_threads for library in libraries]


def run_python(code: str, **environ: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    variables = {"PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path)), **environ}
    return subprocess.check_output(
        [sys.executable, "-c", textwrap.dedent(code)], env=variables, text=True
    )


def test_environment_names_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    variables = environment(3)
    assert set(variables.values()) == {"3"}
    assert {
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "BLIS_NUM_THREADS",
    } <= set(variables)
    assert {"NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS"} <= set(variables)


def test_environment_keeps_a_lower_number_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "16")
    variables = environment(3)
    assert (variables["OMP_NUM_THREADS"], variables["MKL_NUM_THREADS"]) == ("1", "3")


@pytest.mark.parametrize("threads", [0, -1])
@pytest.mark.parametrize("function", [environment, limit_in_this_thread, ProcessWideLimit])
def test_less_than_one_thread_is_refused(function: Callable[[int], object], threads: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        function(threads)


# In one thread


def test_a_thread_limits_openmp_and_leaves_blas(libraries: list[FakeLibrary]) -> None:
    limit_in_this_thread(2)
    assert counts(libraries) == [2, 8]


@pytest.mark.parametrize(
    ("variable", "expected"), [("1", 1), ("1,4", 1), ("16", 2), ("", 2), ("x", 2), ("0", 2)]
)
def test_a_lower_number_of_the_users_stays(
    libraries: list[FakeLibrary], monkeypatch: pytest.MonkeyPatch, variable: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    limit_in_this_thread(2)
    assert libraries[0].num_threads == expected


def test_the_limit_of_a_thread_can_be_raised_again(libraries: list[FakeLibrary]) -> None:
    limit_in_this_thread(1)
    limit_in_this_thread(4)
    assert libraries[0].num_threads == 4


def test_a_repeated_call_reaches_what_was_imported_since(
    libraries: list[FakeLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_in_this_thread(2)
    torch = FakeTorch(8)
    monkeypatch.setitem(sys.modules, "torch", torch)
    limit_in_this_thread(2)
    assert torch.threads == 2


def test_a_repeated_call_is_cheap(
    libraries: list[FakeLibrary], monkeypatch: pytest.MonkeyPatch, within: Within
) -> None:
    limit_in_this_thread(2)
    monkeypatch.setattr(native_threads, "_libraries", lambda: pytest.fail("looked again"))
    with within(1):
        for _ in range(10_000):
            limit_in_this_thread(2)


def test_torch_in_the_middle_of_its_import_is_skipped(
    libraries: list[FakeLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    limit_in_this_thread(2)
    assert libraries[0].num_threads == 2


# In the whole process


def test_process_wide_limit_holds_blas_and_puts_it_back(libraries: list[FakeLibrary]) -> None:
    with ProcessWideLimit(2):
        assert counts(libraries) == [8, 2]
    assert counts(libraries) == [8, 8]


def test_a_limit_never_raises_a_lower_number(libraries: list[FakeLibrary]) -> None:
    libraries[1].num_threads = 1
    with ProcessWideLimit(4):
        assert libraries[1].num_threads == 1
    assert libraries[1].num_threads == 1


def test_overlapping_limits_that_end_in_the_order_they_began(libraries: list[FakeLibrary]) -> None:
    first, second = ProcessWideLimit(4), ProcessWideLimit(2)
    first.apply()
    second.apply()
    assert libraries[1].num_threads == 2
    first.restore()
    assert libraries[1].num_threads == 2
    second.restore()
    assert libraries[1].num_threads == 8


def test_overlapping_limits_that_end_in_reverse_order(libraries: list[FakeLibrary]) -> None:
    with ProcessWideLimit(4):
        with ProcessWideLimit(1):
            assert libraries[1].num_threads == 1
        assert libraries[1].num_threads == 4
    assert libraries[1].num_threads == 8


def test_a_library_loaded_under_the_limit(
    libraries: list[FakeLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProcessWideLimit(2) as limit:
        late = FakeLibrary("blas", "/lib/libblis.so", 6)
        libraries.append(late)
        limit.apply()
        assert late.num_threads == 6, "nothing was imported, so nothing is looked up"
        monkeypatch.setitem(sys.modules, "a module that loads it", SimpleNamespace())
        limit.apply()
        assert late.num_threads == 2
    assert late.num_threads == 6


def test_what_the_user_sets_meanwhile_stays(libraries: list[FakeLibrary]) -> None:
    with ProcessWideLimit(2):
        libraries[1].num_threads = 3
    assert libraries[1].num_threads == 3


@pytest.mark.parametrize("unknown", [None, -1])
def test_a_library_that_does_not_tell_is_left_alone(
    libraries: list[FakeLibrary], unknown: int | None
) -> None:
    libraries[1].num_threads = unknown
    with ProcessWideLimit(2):
        assert libraries[1].num_threads == unknown


def test_restore_twice_and_before_apply(libraries: list[FakeLibrary]) -> None:
    limit = ProcessWideLimit(2)
    limit.restore()
    limit.apply()
    limit.restore()
    limit.restore()
    assert libraries[1].num_threads == 8
    with limit:
        assert libraries[1].num_threads == 2


def test_the_last_limit_puts_torchs_default_back(
    libraries: list[FakeLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = FakeTorch(8)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with ProcessWideLimit(2), ProcessWideLimit(2):
        limit_in_this_thread(2)
        assert torch.threads == 2
    assert torch.threads == 8


def test_torchs_default_that_the_user_changed_stays(
    libraries: list[FakeLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = FakeTorch(8)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with ProcessWideLimit(2):
        limit_in_this_thread(2)
        torch.threads = 5
    assert torch.threads == 5


# The real libraries


def test_nothing_is_imported_where_no_native_library_is() -> None:
    printed = run_python("""
        import sys
        from teamster.machine.native_threads import ProcessWideLimit, limit_in_this_thread
        limit_in_this_thread(1)
        with ProcessWideLimit(1):
            pass
        print({"threadpoolctl", "numpy", "torch", "ctypes", "typing"} & set(sys.modules))
    """)
    assert printed == "set()\n"


def test_numpy() -> None:
    pytest.importorskip("numpy")
    pytest.importorskip("threadpoolctl")
    printed = run_python(
        """
        import numpy, threadpoolctl
        from teamster.machine.native_threads import ProcessWideLimit

        def blas():
            pools = threadpoolctl.threadpool_info()
            return sorted({p["num_threads"] for p in pools if p["user_api"] == "blas"})

        print(blas())
        with ProcessWideLimit(1):
            print(blas())
        print(blas())
        """,
        OPENBLAS_NUM_THREADS="2",
        OMP_NUM_THREADS="2",
        MKL_NUM_THREADS="2",
    )
    before, held, after = printed.splitlines()
    if before == "[]":
        pytest.skip("this NumPy has no BLAS that threadpoolctl knows")
    assert held == "[1]"
    assert after == before


def test_torch() -> None:
    pytest.importorskip("torch")
    printed = run_python(
        """
        import threading, torch
        torch.set_num_threads(3)
        from teamster.machine.native_threads import ProcessWideLimit, limit_in_this_thread

        def in_new_thread(function):
            results = []
            thread = threading.Thread(target=lambda: results.append(function()))
            thread.start()
            thread.join()
            return results[0]

        def worker():
            limit_in_this_thread(1)
            return torch.get_num_threads()

        with ProcessWideLimit(1):
            print(in_new_thread(worker), torch.get_num_threads())
        print(in_new_thread(torch.get_num_threads), torch.get_num_threads())
        """
    )
    assert printed == "1 3\n3 3\n"
