# SPDX-License-Identifier: BSD-3-Clause
"""Batches that were made and not taken by all yet, and who is where."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from teamster.errors import first_line
from teamster.spine.transport.arena import ArenaFull, Broadcast
from teamster.spine.transport.parcel import Parcel
from teamster.spine.transport.pickled import pack_plain

_LEAST_PATIENCE_S = 1.0  # with one that holds the others back; else as long as a window took


@dataclass(slots=True, eq=False)
class Epoch:
    """One pass over the dataset.

    Attributes:
        state: from which anybody draws its order; None until its first batch was made.
        first: position of the first batch that was made here.
        begin: number of that batch, counted over all epochs.
        end: number behind its last one; None while it is being made.
        name: that no other epoch has.
    """

    first: int = 0
    begin: int = 0
    state: dict[str, Any] | None = None
    end: int | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(slots=True, eq=False)
class Consumer:
    """A program, or rather a loader, that takes batches.

    Attributes:
        who: for people.
        epoch: that it takes part in; None before its first.
        next: number of the batch that it takes next.
        asks: what it waits for: "batch", "epoch", or nothing.
        dropped: whether the others do not wait for it any more.
        entered: whether it takes part in an epoch that it does not know of yet.
    """

    who: str
    epoch: Epoch | None = None
    next: int = 0
    asks: str = ""
    dropped: bool = False
    entered: bool = False

    def take_part(self, epoch: Epoch, number: int) -> None:
        """In an epoch, from this batch on."""
        self.epoch, self.next, self.dropped, self.asks = epoch, number, False, ""


@dataclass(slots=True, eq=False)
class PreparedBatch:
    """A batch that was made, or its error.

    Attributes:
        value: for a loop of this program.
        error: raised for it, in its place.
    """

    value: Any
    error: Exception | None = None
    _parcel: Parcel | None = None
    _broadcast: Broadcast | None = None

    def pack(self) -> tuple[Parcel, Broadcast | None]:
        """For other programs: made once, mapped by all.

        Raises:
            Exception: it does not pickle.
        """
        if self._parcel is None:
            self._parcel = pack_plain(self.value)
            if self._parcel.buffers:
                try:
                    self._broadcast = Broadcast(self._parcel.buffers)
                    self._parcel.buffers = []
                except ArenaFull:
                    self._broadcast = None
        return self._parcel, self._broadcast

    def try_to_pack(self) -> None:
        """The same; that it does not pickle is told to those that ask for it."""
        if self.error is None:
            with contextlib.suppress(Exception):
                self.pack()

    def close(self) -> None:
        """Nobody takes it any more."""
        if self._broadcast is not None:
            self._broadcast.close()


class Window:
    """What is between the one that makes batches and those that take them.

    All methods want `changed` held; it is notified when anything has come or gone.

    Args:
        size: batches that the fastest may be ahead of the slowest; may be set later.
        tell: called with a line that a person should see.

    Example:
        >>> window = Window(2, print)
        >>> with window.changed:
        ...     one = window.join("one")
        ...     epoch = window.begin_epoch()
        ...     window.know({"seed": 1})
        ...     window.add(PreparedBatch("batch"))
        ...     window.enter(one) is epoch, window.take(one).value
        (True, 'batch')
    """

    def __init__(self, size: int, tell: Callable[[str], object]) -> None:
        self.changed = threading.Condition()
        self.closed = False
        self.error: Exception | None = None  # nothing can be made
        self.consumers: list[Consumer] = []
        self.size = size
        self._tell = tell
        self._epochs: list[Epoch] = []
        self._ready: deque[PreparedBatch] = deque()
        self._oldest = 0  # number of the first of them
        self._blocked_s: float | None = None  # since when some wait for one that is behind
        self._made_s: deque[float] = deque(maxlen=size + 1)

    # --- those that take --------------------------------------------------------------------------

    def join(self, who: str) -> Consumer:
        """One more."""
        consumer = Consumer(who)
        self.consumers.append(consumer)
        return consumer

    def leave(self, consumer: Consumer) -> None:
        """One less; others do not wait for it any more."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
            self.forget_taken()

    def rejoin(self, consumer: Consumer) -> Consumer:
        """The same program, as one that has not taken part in anything."""
        self.leave(consumer)
        return self.join(consumer.who)

    def let_go(self, consumer: Consumer) -> bool:
        """Whether a consumer was dropped, and has to make its next epoch by itself."""
        dropped = consumer.dropped and not consumer.entered
        if dropped:
            consumer.epoch, consumer.dropped = None, False
        return dropped

    def enter(self, consumer: Consumer, *, now: bool = False) -> Epoch | None:
        """The epoch that a consumer takes part in from now on; None: it has to wait.

        Args:
            consumer: of this window.
            now: whether it may begin in the middle of one.
        """
        if consumer.entered:
            consumer.entered, consumer.asks = False, ""
            return consumer.epoch
        consumer.asks = "epoch"
        epoch = self._epochs[-1] if self._epochs else None
        if epoch is None or epoch.state is None or epoch is consumer.epoch:
            return None
        if not self._is_whole(epoch) and not (now and epoch.end is None):
            return None
        consumer.take_part(epoch, max(epoch.begin, self._oldest))
        self.changed.notify_all()
        return epoch

    def _is_whole(self, epoch: Epoch) -> bool:
        """Whether all of its batches can still be had."""
        return epoch.first == 0 and epoch.begin >= self._oldest

    def find(self, name: str, position: int, consumer: Consumer) -> bool:
        """Have a consumer take part in an epoch that it knows; whether it still can."""
        for epoch in self._epochs:
            if epoch.name == name:
                number = epoch.begin + position - epoch.first
                fits = number >= max(epoch.begin, self._oldest)
                if fits:
                    consumer.take_part(epoch, number)
                return fits
        return False

    def knows(self, name: str) -> bool:
        """Whether an epoch is one of the latest here."""
        return any(epoch.name == name for epoch in self._epochs)

    def position(self, consumer: Consumer) -> int:
        """Of the batch that it takes next, in its epoch."""
        assert consumer.epoch is not None
        return consumer.next - consumer.epoch.begin + consumer.epoch.first

    def take(self, consumer: Consumer) -> PreparedBatch | None:
        """The next batch of a consumer; None where it was not made yet.

        Raises:
            StopIteration: its epoch is over.
            LookupError: it was too slow, and nobody waits for it any more.
        """
        assert consumer.epoch is not None
        consumer.asks = "batch"
        if consumer.dropped or consumer.next < self._oldest:
            raise LookupError
        if consumer.epoch.end is not None and consumer.next >= consumer.epoch.end:
            consumer.asks = ""
            raise StopIteration
        place = consumer.next - self._oldest
        if place >= len(self._ready):
            self.changed.notify_all()
            return None
        ready = self._ready[place]
        consumer.next += 1
        consumer.asks = ""
        return ready

    # --- the one that makes -----------------------------------------------------------------------

    @property
    def epoch(self) -> Epoch | None:
        """The epoch that is being made; None between two."""
        latest = self._epochs[-1] if self._epochs else None
        return latest if latest is not None and latest.end is None else None

    def begin_epoch(self, known: Epoch | None = None) -> Epoch:
        """Make another, or go on with one that another program has begun."""
        epoch = known or Epoch()
        epoch.begin = self._end
        self._epochs = [*self._epochs[-1:], epoch]
        return epoch

    def know(self, state: dict[str, Any]) -> None:
        """What the epoch's order comes from; whoever has waited for an epoch takes part in it."""
        epoch = self.epoch
        if epoch is None or epoch.state is not None:
            return
        epoch.state = state
        for consumer in self.consumers:
            if consumer.asks == "epoch":
                consumer.take_part(epoch, epoch.begin)
                consumer.entered = True

    def end_epoch(self) -> None:
        """All of its batches were made, or nobody wants any more of them."""
        if self.epoch is not None:
            self.epoch.end = self._end
        self.changed.notify_all()

    def add(self, ready: PreparedBatch) -> None:
        """The next batch."""
        self._ready.append(ready)
        self._made_s.append(monotonic())
        self.changed.notify_all()

    @property
    def _end(self) -> int:
        return self._oldest + len(self._ready)

    def wants(self) -> str:
        """What is to be done now: "batch", "epoch", "end" of one that nobody is in; or nothing."""
        waits = any(each.asks == "batch" and each.next >= self._end for each in self._active)
        waiting = [each for each in self.consumers if each.asks == "epoch"]
        epoch = self.epoch
        if epoch is None:
            return "epoch" if waiting else ""
        if not any(each.epoch is epoch for each in self._active):
            return self._wants_of_none(epoch, waiting)
        if len(self._ready) < self.size:
            self._blocked_s = None
            return "batch"
        self._drop_slow(waits or bool(waiting))
        return "batch" if len(self._ready) < self.size else ""

    def _wants_of_none(self, epoch: Epoch, waiting: list[Consumer]) -> str:
        """For an epoch that nobody takes part in: it has just begun, or all have left it."""
        if epoch.state is None:
            return "batch"
        enter = self._is_whole(epoch) and any(each.epoch is not epoch for each in waiting)
        return "end" if waiting and not enter else ""

    @property
    def _active(self) -> list[Consumer]:
        return [each for each in self.consumers if each.epoch is not None and not each.dropped]

    def _drop_slow(self, waits: bool) -> None:
        """Those that others wait for have as long as the window took."""
        now = monotonic()
        if not waits:
            self._blocked_s = None
            return
        self._blocked_s = self._blocked_s or now
        took_s = self._made_s[-1] - self._made_s[0] if len(self._made_s) > 1 else 0.0
        if now - self._blocked_s < max(_LEAST_PATIENCE_S, took_s):
            return
        self._blocked_s = None
        for consumer in self._active:
            if consumer.next <= self._oldest:
                consumer.dropped = True
                self._tell(
                    f"{consumer.who} is {len(self._ready)} batches behind the others, which do not "
                    "wait for it any more: it makes the rest of its epoch itself"
                )
        self.forget_taken()

    def forget_taken(self) -> None:
        """What all have taken may go."""
        slowest = min((each.next for each in self._active), default=self._end)
        while self._ready and self._oldest < slowest:
            self._ready.popleft().close()
            self._oldest += 1
        self.changed.notify_all()

    def check(self) -> None:
        """Raise what keeps batches from being made.

        Raises:
            Exception: that.
        """
        if self.error is not None:
            # Whose traceback would lead from here to the loader, and back
            failed, self.error = self.error, RuntimeError(first_line(self.error))
            try:
                raise failed
            finally:
                del failed
        if self.closed:
            raise RuntimeError("this loader was closed")

    def close(self) -> None:
        """Nothing is made any more."""
        self.closed = True
        for ready in self._ready:
            ready.close()
        self._ready.clear()
        self.changed.notify_all()
