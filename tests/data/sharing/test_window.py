# SPDX-License-Identifier: BSD-3-Clause
"""Who gets which batch, decided without programs, threads or time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teamster.data.sharing import window as windows
from teamster.data.sharing.window import Consumer, Epoch, PreparedBatch, Window


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(windows, "monotonic", lambda: now[0])
    return now


class Maker:
    """Makes epochs of so many batches whenever the window wants one."""

    def __init__(self, window: Window, batches: int) -> None:
        self.window = window
        self.batches = batches
        self.made = 0
        self.epoch = 0

    def step(self) -> str:
        window, wanted = self.window, self.window.wants()
        if wanted == "epoch":
            window.begin_epoch()
            self.made, self.epoch = 0, self.epoch + 1
        elif wanted == "end":
            window.end_epoch()
        elif wanted == "batch" and self.made == self.batches:
            window.know({"epoch": self.epoch})
            window.end_epoch()
        elif wanted == "batch":
            window.know({"epoch": self.epoch})
            window.add(PreparedBatch((self.epoch, self.made)))
            self.made += 1
        return wanted


class Loop:
    """A program that takes epoch after epoch."""

    def __init__(self, window: Window, who: str) -> None:
        self.window = window
        self.consumer: Consumer = window.join(who)
        self.epoch: Epoch | None = None
        self.taken: list[list[Any]] = []

    def step(self) -> None:
        window = self.window
        if self.epoch is None:
            window.let_go(self.consumer)
            self.epoch = window.enter(self.consumer)
            if self.epoch is not None:
                self.taken.append([])
            return
        try:
            ready = window.take(self.consumer)
        except StopIteration:
            self.epoch = None
        except LookupError:
            self.epoch = None
            self.taken[-1].append("gone")
        else:
            if ready is not None:
                self.taken[-1].append(ready.value)
                window.forget_taken()


def told(lines: list[str]) -> Any:
    return lines.append


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(2, 5),
    st.lists(st.integers(0, 20), min_size=400, max_size=400),
)
def test_every_epoch_is_whole_for_all_that_are_waited_for(
    programs: int, batches: int, size: int, turns: list[int]
) -> None:
    window = Window(size, told([]))
    with window.changed:
        maker = Maker(window, batches)
        loops = [Loop(window, str(number)) for number in range(programs)]
        for turn in turns:
            maker.step()
            assert len(window._ready) <= size
            loops[turn % programs].step()
        for _ in range(20 * programs * batches):  # all go on in turn
            maker.step()
            for loop in loops:
                loop.step()
    assert any(len(loop.taken) > 1 for loop in loops)
    for loop in loops:
        for epoch in loop.taken[:-1]:
            if "gone" not in epoch:
                number = epoch[0][0] if epoch else None
                assert epoch == [(number, place) for place in range(batches)]
        numbers = [epoch[0][0] for epoch in loop.taken if epoch and epoch[0] != "gone"]
        assert numbers == sorted(set(numbers))


def test_one_that_is_slow_is_dropped_when_others_have_waited(clock: list[float]) -> None:
    lines: list[str] = []
    window = Window(3, told(lines))
    with window.changed:
        maker, quick, slow = Maker(window, 10), Loop(window, "quick"), Loop(window, "slow")
        for _ in range(4):
            slow.step()
            quick.step()
            maker.step()
        for _ in range(20):
            maker.step()
            quick.step()
        assert len(quick.taken[0]) < 10
        assert not slow.consumer.dropped
        clock[0] += 1.1
        for _ in range(20):
            maker.step()
            quick.step()
        assert slow.consumer.dropped
        assert len(quick.taken[0]) == 10
    assert lines == [
        "slow is 3 batches behind the others, which do not wait for it any more: it makes the "
        "rest of its epoch itself"
    ]


def test_nobody_waits_for_one_that_has_left() -> None:
    window = Window(2, told([]))
    with window.changed:
        maker, stays, leaves = Maker(window, 6), Loop(window, "stays"), Loop(window, "leaves")
        for _ in range(5):
            leaves.step()
            stays.step()
            maker.step()
        window.leave(leaves.consumer)
        for _ in range(20):
            maker.step()
            stays.step()
    assert len(stays.taken[0]) == 6


def test_an_epoch_that_all_have_left_ends() -> None:
    window = Window(2, told([]))
    with window.changed:
        maker, leaves = Maker(window, 6), Loop(window, "leaves")
        for _ in range(5):
            leaves.step()
            maker.step()
        window.leave(leaves.consumer)
        comes = Loop(window, "comes")
        for _ in range(20):
            maker.step()
            comes.step()
    assert [each[0] for each in comes.taken[0]] == [2] * 6


def test_an_epoch_that_was_taken_over_goes_on_where_it_was() -> None:
    window = Window(4, told([]))
    with window.changed:
        consumer = window.join("one")
        window.begin_epoch(Epoch(5, 0, {"seed": 1}, None, "known"))
        assert window.find("known", 5, consumer)
        window.add(PreparedBatch("the sixth"))
        assert window.position(consumer) == 5
        ready = window.take(consumer)
        assert ready is not None
        assert ready.value == "the sixth"
        assert not window.find("known", 4, window.join("too late"))
        assert not window.find("unknown", 0, consumer)
        assert window.knows("known")
