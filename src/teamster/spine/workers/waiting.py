# SPDX-License-Identifier: BSD-3-Clause
"""The callers that wait for a team.

They are woken for what they wait for, for room for more items, or to lead, and for nothing else.

::

    results       --> wake_satisfied
    room          --> offer_room: the callers take turns
    leader leaves --> step_down: the next one leads

Every caller that waited was once woken by everything that happened; a hundred threads that shared a
pool then did a hundred times the work, a hundred times as often.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from threading import get_ident
from time import perf_counter_ns


class Waiter:
    """One call of `Team.run_until`.

    Args:
        done: what it waits for; asked with the team's lock held, by any thread.
        refills: whether it has items to hand out when there is room.
        yielding: whether it leads only as long as no other waits.
    """

    __slots__ = (
        "_gate",
        "done",
        "polls",
        "refills",
        "rests",
        "round",
        "thread",
        "turn",
        "yielding",
    )

    def __init__(
        self, done: Callable[[], bool], *, refills: bool = False, yielding: bool = False
    ) -> None:
        self.done = done
        self.refills = refills
        self.yielding = yielding
        self.polls = False  # it waits in the backend, which has its own way to be woken
        # It waits here; else it is busy, perhaps for long, with an input or a callback
        self.rests = False
        self.turn = refills  # it is asked for items
        self.round = 0  # when that was so last
        self.thread = get_ident()
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> None:
        """Let `rest` return, the next one if none is under way."""
        self.rests = False
        if self._gate.locked():
            try:
                self._gate.release()
            except RuntimeError:  # another thread was faster
                return

    @property
    def woken(self) -> bool:
        """Whether it was woken since it last looked around."""
        return not self._gate.locked()

    def look_around(self) -> None:
        """What is woken for from now on counts."""
        self.rests = False
        self._gate.acquire(blocking=False)

    def rest(self, seconds: float | None) -> None:
        """Until it is woken, at most so long."""
        self._gate.acquire(
            timeout=-1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX)
        )


class Waiters:
    """The callers that wait for one team, in the order in which they are asked for items.

    Every method wants the team's lock held.

    Args:
        wake_backend: makes the leader's poll return.
    """

    def __init__(self, wake_backend: Callable[[], None]) -> None:
        self._wake_backend = wake_backend
        self._all: dict[Waiter, None] = {}
        self.leader: Waiter | None = None  # the one that polls the backend
        self._deputy: Callable[[], None] | None = None  # to be told, once, when none leads
        self._round = 0  # counts the times at which there was room
        self._refillers = 0
        self._sleeps = False  # the leader has set itself no time at which to look

    def __len__(self) -> int:
        return len(self._all)

    def add(self, waiter: Waiter) -> None:
        """Begin to wait; a leader that yields learns of it."""
        self._all[waiter] = None
        self._refillers += waiter.refills
        self.wake_if_yielding()

    def remove(self, waiter: Waiter) -> None:
        """It waits no more; if it led, it has to step down."""
        if waiter in self._all:  # Ctrl-C may have struck before it was there
            del self._all[waiter]
            self._refillers -= waiter.refills

    def step_down(self, waiter: Waiter) -> None:
        """Have another one lead, when `waiter` did, or none does any more."""
        if self.leader is not None and self.leader is not waiter:
            return
        self.leader = None
        successor = next((each for each in self._all if each.rests), None)
        if successor is not None:
            successor.wake()
        elif self._deputy is not None:
            deputy, self._deputy = self._deputy, None
            deputy()

    def begin_rest(self, waiter: Waiter, *, leads: bool, polls: bool, sleeps: bool) -> None:
        """It waits from now on.

        It does so as the leader or not, in the backend or here, until a time or until it is woken.
        """
        if leads:
            self.leader, self._sleeps = waiter, sleeps
        waiter.polls = polls
        waiter.rests = not polls

    def ask(self, deputy: Callable[[], None]) -> bool:
        """Whether no caller leads; else `deputy` is called, once, as soon as that is so."""
        self._deputy = deputy if self.leader is not None else None
        return self.leader is None

    def wake(self, waiter: Waiter | None) -> None:
        """Have it look around."""
        if waiter is not None:
            waiter.wake()
            if waiter.polls:
                self._wake_backend()

    def wake_if_yielding(self) -> None:
        """Have the leader look around, if it is one that steps down for others."""
        if self.leader is not None and self.leader.yielding:
            self.wake(self.leader)

    def wake_if_asleep(self) -> None:
        """There is something that the leader has to watch from now on."""
        if self._sleeps:
            self._sleeps = False
            self.wake(self.leader)

    def wake_satisfied(self) -> None:
        """Something has come that may be waited for."""
        for waiter in self._all:
            if not waiter.woken and waiter.done():
                self.wake(waiter)

    def wake_all(self) -> None:
        """Something has changed that every caller has to look at."""
        for waiter in self._all:
            waiter.turn = True
            self.wake(waiter)

    def is_asked(self, waiter: Waiter) -> bool:
        """Whether it is this caller's turn to hand out items."""
        asked = waiter.turn or self._refillers == 1
        waiter.turn = False
        waiter.round = self._round
        return asked

    @property
    def have_items(self) -> bool:
        """Whether any caller has items to hand out."""
        return self._refillers > 0

    def begin_round(self) -> None:
        """There may be room again: each caller can be asked once."""
        self._round += 1

    def offer_room(self) -> None:
        """Ask one caller for items, the one asked longest ago and not in this round yet."""
        candidates = (
            [each for each in self._all if each.refills and each.round != self._round]
            if self._refillers
            else []
        )
        if candidates:
            waiter = next((each for each in candidates if each.rests or each.polls), candidates[0])
            waiter.round = self._round
            waiter.turn = True
            self.wake(waiter)
            self._all[waiter] = self._all.pop(waiter)  # to the end


def sooner(pause: float | None, deadline_ns: int | None) -> float | None:
    """The shorter of a pause and what is left until a deadline, in seconds.

    Negative when the deadline is over.
    """
    left = None if deadline_ns is None else (deadline_ns - perf_counter_ns()) / 1e9
    return min((each for each in (pause, left) if each is not None), default=None)
