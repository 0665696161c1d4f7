# SPDX-License-Identifier: BSD-3-Clause
"""Functions on their way to process workers.

Which part of a call does not travel is said, and the pool stays usable.
"""

import gc
from typing import Any

import numpy as np
import pytest

import teamster as ts
from teamster.spine.transport.by_value import originals


class Broken:
    """Pickles, and cannot be rebuilt."""

    def __init__(self, nbytes: int) -> None:
        self.blob = "x" * nbytes

    def __setstate__(self, state: object) -> None:
        raise RuntimeError("cannot be rebuilt")


class Fails:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def same(value: Any) -> Any:
    return value


def fails_at_three(number: int) -> Any:
    return Fails() if number == 3 else number


@pytest.mark.parametrize(
    "carried",
    [Broken(10), Broken(200_000), (Broken(10), np.zeros(100_000))],
    ids=["small", "large", "shared"],
)
def test_a_function_that_does_not_load_fails_with_its_own_error(carried: Any) -> None:
    with ts.Pool("process", workers=2) as pool:
        got = pool.map(lambda number: (carried, number), range(20), on_error="return")
        assert {(type(each), str(each)) for each in got} == {(RuntimeError, "cannot be rebuilt")}
        assert got[0].__notes__ == ["raised while a worker unpickled the function"]
        assert pool.map(same, [1, 2]) == [1, 2]


def test_the_item_is_named() -> None:
    with ts.Pool("process", workers=2) as pool:
        got = pool.map(
            same, [Fails() if number == 7 else number for number in range(20)], on_error="return"
        )
        assert got[7].__notes__ == ["raised while a worker unpickled the argument of item 7"]
        results = pool.map(fails_at_three, range(5), on_error="return")
        assert (results[3].part, results[3].index) == ("result", 3)
        assert str(results[3]).startswith(
            "item 3: the result cannot be sent between processes: ValueError"
        )


def test_workers_forget_what_the_program_has_let_go_of() -> None:
    def make(number: int) -> Any:
        class Local:
            value = number

        return Local()

    def count(_: int) -> int:
        return sum("Local" in repr(each.find()) for each in originals._by_key.values())

    with ts.Pool("process", workers=1) as pool:
        assert pool.map(lambda item: item.value, (make(number) for number in range(50))) == list(
            range(50)
        )
        gc.collect()  # classes are in cycles of their own
        pool.map(same, [0])
        assert pool.map(count, [0, 0])[-1] <= 10
