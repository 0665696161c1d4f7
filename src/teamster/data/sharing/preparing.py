# SPDX-License-Identifier: BSD-3-Clause
"""The threads of the program that prepares batches for all.

::

    maker:   make() --> an iterator of the loader --> window.add
    teller:  socket --> ("hello", ...) ("enter", now) ("take", epoch, position) ("leave",)
                    <-- ("epoch", name, state, position) ("batch", ...) ("over",) ("gone",) ...
"""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from teamster import lifetime
from teamster.data.sharing.window import Consumer, Epoch, PreparedBatch, Window
from teamster.errors import first_line
from teamster.machine.descriptors import OwnedSocket
from teamster.machine.own_threads import own_thread
from teamster.spine.transport.channel import Channel
from teamster.spine.transport.rendezvous import Claim, is_of_this_user
from teamster.tasks.monitor.registry import program_ends

Make = Callable[[dict[str, Any] | None], Iterator[Any]]
"""An iterator of one epoch, from its beginning or from a state."""

_LOOK_S = 0.2  # at those that are slow, and whether the loader is still there
_SETTLE_S = 0.3  # for others to say where they are, when an epoch is taken over


@dataclass(slots=True, eq=False)
class _Peer:
    channel: Channel
    consumer: Consumer | None = None
    wanted: tuple[Any, ...] | None = None


class Preparing:
    """Makes batches, and gives them to other programs.

    Args:
        claim: of the name.
        window: of the batches.
        make: iterators of a loader.
        about: what every program's loader has to be like.
        limit: how many batches there may be at a time, of so many.
    """

    def __init__(
        self,
        claim: Claim,
        window: Window,
        make: Make,
        about: dict[str, Any],
        limit: Callable[[int], int],
    ) -> None:
        self._limit, self._most = limit, window.size
        self.window = window
        self._claim = claim
        self._make = make
        self._about = about
        self._peers: dict[int, _Peer] = {}
        self._wake_read, self._wake_write = map(OwnedSocket.of, socket.socketpair())
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        lifetime.renewed_in_copies(self)
        self._threads = [
            own_thread(threading.Thread(target=work, name=name, daemon=True))
            for work, name in ((self._work, "teamster-maker"), (self._serve, "teamster-teller"))
        ]

    def start(self, known: Epoch | None) -> None:
        """Begin; with an epoch that another program has begun, go on with that."""
        if known is not None:
            with self.window.changed:
                self.window.begin_epoch(known)
        self._settled_s = monotonic() + (_SETTLE_S if known is not None else 0.0)
        for thread in self._threads:
            thread.start()

    # --- making -----------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._make_all()
        except BaseException as error:  # the dataset does not pickle, say; or it exits
            if not program_ends():  # else another one goes on
                self._fail(error)

    def _make_all(self) -> None:
        iterator: Iterator[Any] | None = None
        while (wanted := self._await_wish()) is not None:
            if wanted == "end":
                iterator = None
                with self.window.changed:
                    self.window.end_epoch()
            elif wanted == "epoch":
                with self.window.changed:
                    self.window.begin_epoch()
            else:
                iterator = iterator if iterator is not None else self._begun()
                if not self._make_one(iterator):
                    iterator = None
            self._nudge()

    def _fail(self, error: BaseException) -> None:
        """Nothing can be made here: whoever waits is told why."""
        with self.window.changed:
            known = isinstance(error, Exception)
            told = error if known else RuntimeError(f"{type(error).__name__}: {first_line(error)}")
            self.window.error = told.with_traceback(None)  # type: ignore[assignment]
            self.window.changed.notify_all()
        self._nudge()

    def _await_wish(self) -> str | None:
        """What is to be done; None when nothing is any more."""
        window = self.window
        while True:
            with window.changed:
                if window.closed:
                    return None
                settled = monotonic() >= self._settled_s
                if settled and (wanted := window.wants()):
                    return wanted
                window.changed.wait(_LOOK_S)
            self._nudge()

    def _begun(self) -> Iterator[Any]:
        epoch = self.window.epoch
        assert epoch is not None
        if epoch.state is None:
            return self._make(None)
        return self._make({**epoch.state, "given": (epoch.first, [])})

    def _make_one(self, iterator: Any) -> bool:
        """Add the next batch; whether there was one, or an error in its place."""
        try:
            ready = PreparedBatch(next(iterator))
        except StopIteration:
            with self.window.changed:
                self._tell_state(iterator)
                self.window.end_epoch()
            return False
        except Exception as error:
            ready = PreparedBatch(None, error.with_traceback(None))
        if len(self.window.consumers) > 1:
            ready.try_to_pack()
        with self.window.changed:
            self._tell_state(iterator)
            self.window.size = self._limit(self._most)
            self.window.add(ready)
        return True

    def _tell_state(self, iterator: Any) -> None:
        epoch = self.window.epoch
        if epoch is not None and epoch.state is None:
            self.window.know(iterator.origin())

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    # --- telling ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        poll = select.poll()
        for end in (self._claim.listener, self._wake_read):
            poll.register(end.fileno(), select.POLLIN)
        while not self.window.closed:
            for descriptor, _ in poll.poll():
                self._look_at(poll, descriptor)
            for peer in list(self._peers.values()):
                try:
                    self._answer(poll, peer)
                except Exception:  # of this one; the others go on
                    self._part(poll, peer)
        for peer in self._peers.values():
            peer.channel.close()

    def _look_at(self, poll: select.poll, descriptor: int) -> None:
        """There is something to read."""
        if descriptor == self._wake_read.fileno():
            with contextlib.suppress(OSError):
                self._wake_read.recv(4096)
        elif descriptor == self._claim.listener.fileno():
            self._welcome(poll)
        elif descriptor in self._peers:
            try:
                self._hear(poll, descriptor)
            except Exception:  # it does not speak as ours do
                self._part(poll, self._peers[descriptor])

    def _welcome(self, poll: select.poll) -> None:
        try:
            end, _ = self._claim.listener.accept()
        except OSError:
            return
        if not is_of_this_user(end):
            end.close()
            return
        peer = _Peer(Channel(end, blocking=True))
        self._peers[peer.channel.fileno()] = peer
        poll.register(peer.channel.fileno(), select.POLLIN)

    def _hear(self, poll: select.poll, descriptor: int) -> None:
        peer = self._peers[descriptor]
        messages = peer.channel.take()
        if messages is None:
            self._part(poll, peer)
            return
        for message in messages:
            if message[0] == "hello":
                self._greet(peer, *message[1:])
            elif message[0] == "leave" and peer.consumer is not None:
                with self.window.changed:
                    peer.consumer = self.window.rejoin(peer.consumer)
                peer.wanted = None
            else:
                peer.wanted = message

    def _greet(self, peer: _Peer, about: dict[str, Any], who: str) -> None:
        other = [name for name, value in self._about.items() if about.get(name) != value]
        if other:
            told = (
                f"{other[0]} is {self._about[other[0]]!r} there, and {about.get(other[0])!r} here"
            )
            peer.channel.put(("refused", told))
            return
        with self.window.changed:
            peer.consumer = self.window.join(who)
        peer.channel.put(("welcome",))

    def _part(self, poll: select.poll, peer: _Peer) -> None:
        number = peer.channel.fileno()
        with contextlib.suppress(OSError, KeyError):
            poll.unregister(number)
        self._peers.pop(number, None)
        if peer.consumer is not None:
            with self.window.changed:
                self.window.leave(peer.consumer)
        peer.channel.close()

    def _answer(self, poll: select.poll, peer: _Peer) -> None:
        if peer.wanted is None or peer.consumer is None:
            return
        with self.window.changed:
            found = self._find(peer.consumer, *peer.wanted)
            if found is None and self.window.error is not None:
                found = _told(self.window.error)
            # Under the lock: what all have taken is closed
            told = None if found is None else _encoded(peer.channel, found)
        if told is None:
            return
        peer.wanted = None
        try:
            peer.channel.put(told)
        except OSError:
            self._part(poll, peer)
        with self.window.changed:
            self.window.forget_taken()

    def _find(
        self, consumer: Consumer, wish: str, *more: Any
    ) -> tuple[Any, ...] | PreparedBatch | None:
        """The answer to a wish, in so far as there is one by now."""
        window = self.window
        if wish == "enter":
            if window.let_go(consumer):
                return ("alone",)
            epoch = window.enter(consumer, now=more[0])
            if epoch is None:
                return None
            return ("epoch", epoch.name, epoch.state, window.position(consumer))
        name, position = more[:2]
        own = consumer.epoch
        if (own is None or own.name != name) and not window.find(name, position, consumer):
            if wish == "take" and not window.knows(name):
                return ("unknown",)
            if not self._go_back(*more):
                return ("gone",)
            window.find(name, position, consumer)
        try:
            ready = window.take(consumer)
            if ready is not None:
                ready.try_to_pack()
            return ready
        except StopIteration:
            return ("over",)
        except LookupError:
            return ("gone",)

    def _go_back(self, name: str, position: int, state: Any = None) -> bool:
        """Begin an epoch that was taken over where the slowest is, before any of it was made."""
        epoch = self.window.epoch
        if state is not None and epoch is None:
            self.window.begin_epoch(Epoch(position, 0, state, None, name))
            return True
        early = epoch is not None and epoch.name == name and monotonic() < self._settled_s
        if early and epoch is not None and position < epoch.first:
            for each in self.window.consumers:
                if each.epoch is epoch:
                    each.next += epoch.first - position
            epoch.first = position
        return early

    def close(self) -> None:
        """End: another program may have the name."""
        with self.window.changed:
            self.window.close()
        self._claim.close()
        self._nudge()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(2 * _LOOK_S)
        self._wake_read.close()
        self._wake_write.close()

    def after_fork(self) -> None:
        """In a forked copy, which has no threads: it is the original's."""
        self.window.changed = threading.Condition()
        self.window.closed, self._threads = True, []
        self._claim.let_go()
        self._wake_read.close()
        self._wake_write.close()


def _told(error: Exception) -> tuple[Any, ...]:
    """An error as another program can have it."""
    text = f"{type(error).__name__}: {first_line(error)}"
    with contextlib.suppress(Exception):
        return ("raised", pickle.dumps(error), text)
    return ("failed", text)


def _encoded(channel: Channel, made: tuple[Any, ...] | PreparedBatch) -> tuple[Any, ...]:
    if isinstance(made, tuple):
        return made
    if made.error is not None:
        return _told(made.error)
    try:
        parcel, broadcast = made.pack()
    except Exception as error:
        return ("failed", f"a batch does not pickle: {first_line(error)}")
    if broadcast is None:
        return ("batch", channel.stow(parcel))
    return ("batch", channel.stow_broadcast(parcel, broadcast))
