# SPDX-License-Identifier: BSD-3-Clause
"""Whether a function may leave this process."""

import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from teamster.spine.plan.safety import check as safety
from teamster.spine.plan.safety.check import SafetyCheck

LOG: list[int] = []
MISSING = object()
LOCK = threading.Lock()
FILE = sys.__stdout__
COUNT = 0
LARGE = list(range(2_000_000))


class Lossy:
    """Comes back from pickling as something else."""

    def __reduce__(self) -> Any:
        return (int, (3,))


class Fragile:
    """Pickles, and does not come back."""

    def __reduce__(self) -> Any:
        return (int, ("x",))


class Plain:
    """Attributes whose names are interned on the way."""

    def __init__(self) -> None:
        self.one = self.two = "".join(["o", "ne"])


def notes(item: int) -> int:
    LOG.append(item)
    return item


def locks(item: int) -> int:
    with LOCK:
        return item


def reads(item: int) -> bool:
    return FILE is None or FILE.closed


def counts(item: int) -> int:
    global COUNT
    COUNT += 1
    return item


def draws(item: int) -> float:
    return random.random()


def changes(item: list[int]) -> int:
    item.append(1)
    return len(item)


def looks_up(item: int) -> int:
    return LARGE[item]


def ask(
    function: Callable[[Any], Any], item: Any, seconds: float = 5.0, **options: bool
) -> SafetyCheck:
    asked = SafetyCheck(function, **options)
    if asked.begin(item, seconds):
        asked.end(item, function(item))
    return asked


@pytest.mark.parametrize(
    ("function", "item", "why"),
    [
        (notes, 1, "the call changes `LOG`, which it carries"),
        (locks, 1, "it uses `LOCK`, a lock"),
        (reads, 1, "it uses `FILE`, an open file"),
        (counts, 1, "it assigns `COUNT`, which it carries"),
        (
            draws,
            1,
            "it draws random numbers from `random`, whose order the loop keeps; with seed= each "
            "item has its own",
        ),
        (
            lambda item: hash(str(item)),
            1,
            "it calls `hash`, which is not the same in a new process",
        ),
        (changes, [], "the call changes its argument"),
        (
            lambda item: item[0] is MISSING,
            [MISSING],
            "its argument holds an object() that is told by its identity",
        ),
        (abs, threading.Lock(), "its argument holds a lock"),
        (lambda item: threading.Lock(), 1, "its result does not survive pickling: "),
        (lambda item: Lossy(), 1, "its result, of type Lossy, is another one after pickling"),
        (lambda item: Fragile(), 1, "its result does not survive pickling: invalid literal"),
    ],
)
def test_it_stays(function: Callable[[Any], Any], item: Any, why: str) -> None:
    asked = ask(function, item)
    assert asked.settled
    assert asked.stays.startswith(why)
    assert "\n" not in asked.stays


@pytest.mark.parametrize(
    ("function", "item"),
    [
        (abs, -3),
        (str.upper, "x"),
        (lambda item: Plain(), 1),
        (lambda item: {"a", "b", "c"}, 1),
        (lambda item: item, {1, 2}),
    ],
)
def test_it_may_leave(function: Callable[[Any], Any], item: Any) -> None:
    asked = ask(function, item)
    assert (asked.settled, asked.stays) == (True, "")
    assert asked.argument_bytes
    assert asked.result_bytes


class Shy:
    """Like a proxy outside of the context that it stands for."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("working outside of request context")


SHY = Shy()


def uses_a_proxy(item: int) -> int:
    return item if SHY is not None else 0


def test_what_refuses_to_be_looked_at_stays() -> None:
    assert (
        ask(uses_a_proxy, 1).stays
        == "what it carries cannot be looked at: working outside of request context"
    )


def test_with_a_seed_random_numbers_are_the_jobs_affair() -> None:
    assert ask(draws, 1, seeded=True).stays == ""


def test_a_generator_that_the_call_loads_is_looked_at_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = iter([{}, {"numpy.random": 1}])
    monkeypatch.setattr(safety, "_random_state", lambda: next(states))
    assert not ask(abs, 1).settled


def test_numpy_and_its_generator() -> None:
    numpy = pytest.importorskip("numpy")
    numpy.random.seed(3)  # loads it
    assert "numpy.random" in ask(lambda item: float(numpy.random.normal()), 1).stays
    assert ask(lambda item: item * 2, numpy.ones(1_000)).stays == ""
    assert (
        ask(lambda item: item.sort(), numpy.random.default_rng(1).random(1_000)).stays
        == "the call changes its argument"
    )


def test_what_is_large_takes_time() -> None:
    asked = ask(looks_up, 1, seconds=0.001)
    assert not asked.settled
    assert asked.begin(1, 5.0)
    asked.end(1, looks_up(1))
    assert (asked.settled, asked.stays) == (True, "")
    other = ask(looks_up, 1, seconds=0.001)
    other.give_up()
    assert other.stays == "what it carries is too large to compare in the time that it takes"


def test_the_generators_are_left_as_they_were() -> None:
    state = random.getstate()
    ask(abs, 3)
    assert random.getstate() == state
