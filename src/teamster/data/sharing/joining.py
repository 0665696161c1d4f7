# SPDX-License-Identifier: BSD-3-Clause
"""What a loader sees of those that it shares with: epochs and batches, whoever prepares them."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data._utils.pin_memory import pin_memory

from teamster.data.loader_report import LoaderClock
from teamster.data.sharing.preparing import Make, Preparing
from teamster.data.sharing.window import Consumer, Epoch, Window
from teamster.data.state import Progress
from teamster.data.transfer import transfer_of
from teamster.errors import UsageError
from teamster.spine.transport.channel import Channel
from teamster.spine.transport.rendezvous import Claim, claim

_SIZE = 8  # batches that the fastest may be ahead
_LOOK_S = 1.0  # at whether the one that prepares is still there


class Gone(Exception):
    """Nobody has this batch any more: whoever wants it makes it."""


class Sharing:
    """The part of one loader in what several programs share.

    Args:
        name: that all of them give.
        make: iterators of the loader.
        about: what every program's loader has to be like.
        limit: how many batches there may be at a time, of so many.
        now: whether to begin where the others are, and not with their next epoch.
        timeout: seconds that a batch may take; None for any time.
    """

    def __init__(
        self,
        name: str,
        make: Make,
        about: dict[str, Any],
        limit: Callable[[int], int],
        *,
        now: bool,
        timeout: float | None,
    ) -> None:
        self._name = name
        self._make = make
        self._about = about
        self._limit = limit
        self._now = now
        self._timeout = timeout
        self._preparing: Preparing | None = None
        self._consumer: Consumer | None = None  # of this program, where it prepares
        self._channel: Channel | None = None
        self.busy = False  # an iterator of the loader takes part

    @property
    def prepares(self) -> bool:
        """Whether this program makes the batches of all."""
        return self._preparing is not None

    def _connect(self, known: Epoch | None = None) -> None:
        if self._preparing is not None and self._preparing.window.closed:  # a forked copy
            self._preparing = self._consumer = None
        if self._preparing is not None or self._channel is not None:
            return
        found = claim(f"loader-{self._name}")
        who = f"{os.path.basename(sys.argv[0]) or 'a program'} (process {os.getpid()})"
        if isinstance(found, Claim):
            window = Window(_SIZE, _tell)
            self._consumer = window.join(who)
            self._preparing = Preparing(found, window, self._make, self._about, self._limit)
            self._preparing.start(known)
            return
        channel, answer = Channel(found, blocking=True), None
        with contextlib.suppress(OSError):  # it ends
            channel.put(("hello", self._about, who))
            answer = _next_of(channel)
        if answer is not None and answer[0] == "refused":
            channel.close()
            raise UsageError(f"another loader has the name share={self._name!r}: {answer[1]}")
        if answer is None:  # it has ended meanwhile
            channel.close()
            self._connect(known)
        else:
            self._channel = channel

    def _ask(self, *wish: Any, known: Epoch | None = None) -> tuple[Any, ...]:
        """An answer of the program that prepares; another takes its place when it ends."""
        while True:
            self._connect(known)
            channel = self._channel
            if channel is None:
                return ("here",)
            answer = None
            try:
                channel.put(wish)
                if not channel.has_input(self._timeout):
                    raise RuntimeError(f"no batch came within timeout={self._timeout:g} s")
                answer = _next_of(channel)
            except OSError:
                pass
            except BaseException:  # its answer, if one comes, is no answer to the next wish
                channel.close()
                self._channel = None
                raise
            if answer is not None:
                return answer
            channel.close()
            self._channel = None

    def enter(self) -> tuple[str, dict[str, Any], int] | None:
        """Take part in an epoch.

        Returns:
            Its name, a state from which its order is drawn, and the position of the first batch;
            None where this loader has to make one of its own, since the others did not wait.
        """
        answer = self._ask("enter", self._now)
        if answer[0] == "here":
            return self._enter_here()
        if answer[0] in ("raised", "failed"):
            raise _error_of(answer)
        return None if answer[0] == "alone" else answer[1:]

    def _enter_here(self) -> tuple[str, dict[str, Any], int] | None:
        assert self._preparing is not None
        assert self._consumer is not None
        window, consumer = self._preparing.window, self._consumer
        with window.changed:
            if window.let_go(consumer):
                return None
            while (epoch := window.enter(consumer, now=self._now)) is None:
                window.check()
                window.changed.notify_all()
                window.changed.wait(_LOOK_S)
            assert epoch.state is not None
            return epoch.name, epoch.state, window.position(consumer)

    def take(self, name: str, state: dict[str, Any], position: int) -> Any:
        """A batch.

        Args:
            name: of the epoch.
            state: of the epoch, should this program have to go on with it for all.
            position: of the batch.

        Raises:
            StopIteration: the epoch is over.
            Gone: this loader was too slow.
            Exception: what was raised for this batch.
        """
        answer = self._ask("take", name, position, known=Epoch(position, 0, state, None, name))
        if answer[0] == "unknown":  # another prepares by now, which has not taken part in this
            answer = self._ask("go on", name, position, state)
        kind = answer[0]
        if kind == "here":
            return self._take_here(name, position)
        if kind == "over":
            raise StopIteration
        if kind == "gone":
            raise Gone
        if kind in ("raised", "failed"):
            raise _error_of(answer)
        assert self._channel is not None
        return self._channel.open(answer[1])

    def _take_here(self, name: str, position: int) -> Any:
        assert self._preparing is not None
        assert self._consumer is not None
        window, consumer = self._preparing.window, self._consumer
        with window.changed:
            takes_part = consumer.epoch is not None and consumer.epoch.name == name
            if not takes_part and not window.find(name, position, consumer):
                raise Gone
            try:
                while (ready := window.take(consumer)) is None:
                    window.check()
                    window.changed.wait(_LOOK_S)
            except LookupError:
                raise Gone from None
            if len(window.consumers) > 1:
                ready.try_to_pack()  # before the loop of this program, which may change it
            window.forget_taken()
        if ready.error is not None:
            raise ready.error
        return ready.value

    def leave(self) -> None:
        """Take part in no epoch, so that none waits for this loader."""
        self.busy = False
        if self._channel is not None:
            try:
                self._channel.put(("leave",))
            except OSError:
                self._channel.close()
                self._channel = None
        elif self._preparing is not None and self._consumer is not None:
            window = self._preparing.window
            with window.changed:
                self._consumer = window.rejoin(self._consumer)

    def close(self) -> None:
        """End; another program goes on where this one has prepared for all."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._preparing is not None:
            self._preparing.close()
            self._preparing = None


def shared_part(loader: Any, limit: Callable[[int], int]) -> Sharing:
    """The part of a loader in what it shares; it ends with the loader.

    Args:
        loader: with a name to share by.
        limit: how many batches there may be at a time, of so many.
    """
    now, timeout = loader.share_late == "now", loader.timeout or None
    make = _maker(weakref.ref(loader))
    sharing = Sharing(loader.share, make, describe(loader), limit, now=now, timeout=timeout)
    weakref.finalize(loader, sharing.close)
    return sharing


def _maker(loader: weakref.ref[Any]) -> Make:
    """Makes iterators of a loader, and does not keep it."""

    def make(resume: dict[str, Any] | None) -> Iterator[Any]:
        there = loader()
        if there is None:
            raise RuntimeError("this loader is gone")
        made: Iterator[Any] = there.for_all(resume)
        return made

    return make


def describe(loader: Any) -> dict[str, Any]:
    """What loaders have to have in common to share their batches.

    Example:
        >>> from teamster.data import DataLoader
        >>> describe(DataLoader([1, 2], 2))["samples"]
        2
    """
    dataset, collate = loader.dataset, loader.collate_fn
    return {
        "dataset": type(dataset).__qualname__,
        "samples": len(dataset) if hasattr(dataset, "__len__") else None,
        "batch_size": loader.batch_size,
        "drop_last": loader.drop_last,
        "sampler": type(loader.sampler).__qualname__,
        "collate_fn": getattr(collate, "__qualname__", type(collate).__qualname__),
    }


def _error_of(answer: tuple[Any, ...]) -> Exception:
    if answer[0] == "raised":
        with contextlib.suppress(Exception):  # its class is not to be had here
            error: Exception = pickle.loads(answer[1])
            return error
    return RuntimeError(answer[-1])


def _next_of(channel: Channel) -> tuple[Any, ...] | None:
    """The next message; None when the other program has ended."""
    while not (messages := channel.take()):
        if messages is None:
            return None
    channel.unread(messages[1:])
    message: tuple[Any, ...] = messages[0]
    return message


def _tell(line: str) -> None:
    with contextlib.suppress(Warning):  # an error where warnings are errors: not in this thread
        warnings.warn(line, stacklevel=2)


class SharedIterator:
    """One epoch of a loader that several programs share.

    Args:
        loader: of this program.
        sharing: of the loader.
        clock: of the loader.
    """

    def __init__(self, loader: Any, sharing: Sharing, clock: LoaderClock) -> None:
        self._loader = loader  # which ends its part in this when it goes
        self._sharing = sharing
        self._clock = clock
        self._transfer = transfer_of(loader)
        can_pin = loader.pin_memory and torch.accelerator.is_available()
        self._pin = loader.pin_memory_device if can_pin else None
        self._reset()

    def _reset(self, loader: Any = None, first_iter: bool = False) -> None:
        self._epoch: tuple[str, dict[str, Any]] | None = None
        self._own: Iterator[Any] | None = None
        self.position = 0
        self.is_over = False
        self._clock.begin_epoch()

    def __iter__(self) -> SharedIterator:
        return self

    def __next__(self) -> Any:
        if self.is_over:
            raise StopIteration
        self._clock.begin()
        try:
            batch = self._following()
        except StopIteration:
            self.is_over = True
            if self._epoch is not None and self._own is None:
                self._sharing.busy = False
            raise
        self.position += 1
        if self._transfer is not None:
            batch = self._transfer(batch)
        elif self._pin is not None:
            batch = pin_memory(batch, self._pin)
        self._clock.end(len(batch) if hasattr(batch, "__len__") else 1)
        return batch

    def _following(self) -> Any:
        if self._own is None and self._epoch is None:
            self._enter()
        if self._own is not None:
            return next(self._own)
        assert self._epoch is not None
        try:
            return self._sharing.take(*self._epoch, self.position)
        except Gone:
            warnings.warn(
                "the programs that share this loader do not wait for this one any more: it makes "
                "the rest of its epoch itself",
                stacklevel=4,
            )
            self._sharing.leave()
            self._own = self._loader.for_all({**self._epoch[1], "given": (self.position, [])})
        except Exception:
            self.position += 1  # another batch comes next
            raise
        return next(self._own)

    def _enter(self) -> None:
        entered = None if self._sharing.busy else self._sharing.enter()
        if entered is None:  # another iterator of the loader takes part, or the others are ahead
            self._own = self._loader.for_all(None)
            return
        self._sharing.busy = True
        name, state, self.position = entered
        self._epoch = name, state

    def origin(self) -> dict[str, Any]:
        """What decides the order of this epoch."""
        if self._epoch is not None:
            return self._epoch[1]
        return self._own.origin() if self._own is not None else {}  # type: ignore[attr-defined]

    @property
    def progress(self) -> Progress:
        """What of it was given."""
        return Progress(self.position)

    def close(self) -> None:
        """It is left in the middle, perhaps."""
        if self._epoch is not None and self._own is None and not self.is_over:
            self._sharing.leave()
        self._own = None

    def __del__(self) -> None:
        self.close()
