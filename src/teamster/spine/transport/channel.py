# SPDX-License-Identifier: BSD-3-Clause
"""A private channel of two processes: messages over a Unix socket, large buffers beside it.

::

    put(("batch", 7, channel.stow(parcel)))        message = channel.take()[i]
        |  pickle, 8 bytes of length before it         ^      value = channel.open(message[2])
        +--> socket (+ descriptors of new segments) ---+      buffers: arena.py

Guarantees: messages arrive whole and in order, or not at all; a dead peer is an end of file and
never a lock that stays taken; with ``blocking=False`` a full socket keeps the rest in an outbox
(`flush` it when the socket is writable), so two sides that send large messages at each other cannot
stop each other.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import pickle
import socket
import struct
import threading
import warnings
from collections import deque
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

from teamster import lifetime
from teamster.machine.descriptors import OwnedSocket
from teamster.spine.transport.arena import ArenaFull, Borrower, Broadcast, Lender, make_file
from teamster.spine.transport.by_value.definitions import UnsentDefinitions, define
from teamster.spine.transport.multiprocessing_objects import Key, Passed, arrive
from teamster.spine.transport.parcel import Parcel
from teamster.spine.transport.pickled import unpack
from teamster.spine.transport.polling import READABLE, make_poll
from teamster.spine.transport.sockets import SILENTLY, close_all

Encoded = Any
"""A parcel as it stands in a message: its bytes, or a tuple that says where its parts are."""

_LENGTH = struct.Struct("<Q")
_READ_BYTES = 64 * 1024  # a larger one is mapped and unmapped for every read: 30 us instead of 1
SPIN_NS = 60_000
"""How long a reader looks again and again before it sleeps: a wake-up costs as much."""

_IN_MESSAGE_BYTES = 64 * 1024  # larger pickles go through the arena, too

# What a descriptor is for; a broadcast has a negative number
_ATTACHED, _TO_BORROW, _TO_LEND = 0, 1, 2


class Channel:
    """One end; one thread at a time may send, and one receive."""

    def __init__(self, end: socket.socket, *, blocking: bool) -> None:
        end = self._socket = OwnedSocket.of(end)
        end.setblocking(blocking)
        self._blocking = blocking
        self._ahead: list[Any] = []  # messages that were read before they were asked for
        self._ended = False
        self._lender = Lender()
        self._borrower = Borrower()
        self._outbox: deque[tuple[memoryview, list[int]]] = deque()
        self._fresh: list[tuple[int | Key, int, int]] = []  # purpose, bytes, descriptor: to be sent
        self._descriptors: deque[int] = deque()  # received with the message that is not whole yet
        self._broadcasts = itertools.count(1)
        self._definitions = UnsentDefinitions()
        self.attached: list[int] = []  # came with `put(..., descriptors)`, for the reader to take
        self._partial = bytearray()
        self._held = bytearray()
        self.corked = False
        self._sending = threading.Lock()
        self.bytes_sent = 0
        self.bytes_received = 0
        self._poll = make_poll()
        self._poll.register(end.fileno(), READABLE)
        lifetime.renewed_in_copies(self)

    def set_blocking(self, blocking: bool) -> None:
        """Whether `take` waits for input."""
        self._socket.setblocking(blocking)
        self._blocking = blocking

    def fileno(self) -> int:
        """The socket's descriptor, for polling."""
        return self._socket.fileno()

    def is_whole(self) -> bool:
        """Whether the socket was not closed by a program that closes every descriptor."""
        return self._socket.is_whole()

    def furnish(self) -> None:
        """Make the shared memory of both directions here.

        Later, a program that has opened all descriptors it may would lose it and what was sent.
        """
        with contextlib.suppress(OSError):
            self._open_file()
            theirs = make_file()
            self._fresh.append((_TO_LEND, 0, theirs))
            self._borrower.adopt(os.dup(theirs))

    # --- sending ----------------------------------------------------------------------------------

    def _open_file(self) -> None:
        """Make the file that this end lends from, and have it announced.

        Raises:
            ArenaFull: there is no memfd, or no descriptor left.
        """
        ours = make_file()
        try:
            self._fresh.append((_TO_BORROW, 0, os.dup(ours)))
        except OSError as error:
            os.close(ours)
            raise ArenaFull(f"no anonymous shared memory: {error}") from error
        self._lender.use(ours)

    def enclose(self, passed: Sequence[Passed]) -> None:
        """Have descriptors go with the next message, for a parcel in it."""
        self._fresh += [(each.key, 0, os.dup(each.number)) for each in passed]

    def stow(self, parcel: Parcel) -> Encoded:
        """Make `parcel` ready for the next message: what is large is copied into shared memory."""
        if parcel.needs:
            self._definitions.add(parcel.needs, self.stow)
        if parcel.passed:
            self.enclose(parcel.passed)
        if not parcel.buffers and len(parcel.data) <= _IN_MESSAGE_BYTES:
            return parcel.data
        return self._stow_data(parcel.data), [self._lend(view) for view in parcel.buffers]

    def stow_broadcast(self, parcel: Parcel, broadcast: Broadcast) -> Encoded:
        """Make a parcel ready whose buffers are in shared memory that all receivers have.

        Raises:
            OSError: no descriptor is left.
        """
        identity = -next(self._broadcasts)
        self._fresh.append((identity, broadcast.nbytes, os.dup(broadcast.descriptor)))
        self._definitions.add(parcel.needs, self.stow)
        self.enclose(parcel.passed)
        return self._stow_data(parcel.data), (identity, broadcast.spans)

    def _stow_data(self, data: bytes) -> Any:
        return data if len(data) <= _IN_MESSAGE_BYTES else self._lend(memoryview(data))

    def _lend(self, view: memoryview) -> Any:
        if self._blocking and not self._lender.has_free(view.nbytes):
            self._read_ahead()
        try:
            if not self._lender.has_file:
                self._open_file()
            return self._lender.lend(view)
        except ArenaFull as full:
            warnings.warn(
                f"teamster: {full}; large objects are copied through a socket instead, slower",
                RuntimeWarning,
                stacklevel=2,
            )
            return bytearray(view)

    def put(self, message: tuple[Any, ...], descriptors: tuple[int, ...] = ()) -> bool:
        """Send `message`, with the segments that came free since the last one.

        `descriptors` go along and are closed here.

        Returns:
            Whether everything is on its way; False when a rest waits in the outbox.

        Raises:
            OSError: the peer is gone.
        """
        with self._sending:
            fresh, self._fresh = self._fresh, []
            fresh += [(_ATTACHED, 0, descriptor) for descriptor in descriptors]
            gone, self._lender.forgotten = self._lender.forgotten, []
            home = self._borrower.collect_returned() if self._borrower.has_returned else []
            attached = [descriptor for _, _, descriptor in fresh]
            arrivals = [(purpose, nbytes) for purpose, nbytes, _ in fresh]
            definitions = self._definitions.take()
            beside = home, gone, arrivals, definitions
            body = pickle.dumps((message, *beside) if any(beside) else (message,), 5)
            self.bytes_sent += len(body)
            frame = _LENGTH.pack(len(body)) + body
            if self.corked and not attached and len(frame) < _IN_MESSAGE_BYTES:
                self._held += frame
                return True
            if not self._release() or self._outbox:
                self._outbox.append((memoryview(frame), attached))
                return False
            return self._push(memoryview(frame), attached)

    def cork(self) -> None:
        """Hold small messages back until `uncork`: several then cost one system call."""
        self.corked = True

    def uncork(self) -> bool:
        """Send what was held back; True when everything is on its way."""
        with self._sending:
            self.corked = False
            return self._release() and not self._outbox

    def _release(self) -> bool:
        """Send what was held back, before anything else is."""
        if not self._held:
            return True
        held, self._held = memoryview(bytes(self._held)), bytearray()
        if self._outbox:
            self._outbox.append((held, []))
            return False
        return self._push(held, [])

    def _push(self, frame: memoryview, descriptors: list[int]) -> bool:
        """Write what fits; what does not waits at the head of the outbox."""
        while frame:
            try:
                if descriptors:
                    sent = socket.send_fds(self._socket, [frame], descriptors, SILENTLY)
                    close_all(descriptors)
                    descriptors = []
                else:
                    sent = self._socket.send(frame, SILENTLY)
            except BlockingIOError:
                self._outbox.appendleft((frame, descriptors))
                return False
            except OSError:
                close_all(descriptors)
                raise
            frame = frame[sent:]
        return True

    def flush(self) -> bool:
        """Go on with the outbox; True when it is empty.

        Raises:
            OSError: the peer is gone.
        """
        with self._sending:
            while self._outbox:
                if not self._push(*self._outbox.popleft()):
                    return False
            return True

    @property
    def owes_segments(self) -> bool:
        """Whether segments of the peer's came free and no message has taken them home yet."""
        return self._borrower.has_returned

    # --- receiving --------------------------------------------------------------------------------

    def _read_ahead(self) -> None:
        """Segments may have come home with messages not read yet; new memory costs far more."""
        while not self._ended and self._poll.poll(0):
            messages = self._receive()
            self._ended = messages is None
            self._ahead += messages or []

    def await_input(self) -> None:
        """Wait for input on a channel that blocks, at first without sleeping."""
        if self._ahead or self._ended:
            return
        until = perf_counter_ns() + SPIN_NS
        poll, yield_processor = self._poll.poll, os.sched_yield
        while perf_counter_ns() < until:
            if poll(0):
                return
            yield_processor()  # threads that have work go first

    def has_input(self, seconds: float | None) -> bool:
        """Whether `take` would not wait, after so many seconds at most; None: for ever."""
        poll = make_poll()  # one of its own: several threads may ask
        poll.register(self._socket.fileno(), READABLE)
        return bool(self._ahead or self._ended or poll.poll(seconds and seconds * 1000))

    def unread(self, messages: list[Any]) -> None:
        """Give messages back, for the next `take`."""
        self._ahead[:0] = messages

    def take(self) -> list[Any] | None:
        """The messages that one read of the socket completes (perhaps none).

        None at the end of the stream.

        Raises:
            BlockingIOError: nothing there (on a channel that does not block).
        """
        if self._ahead:
            ahead, self._ahead = self._ahead, []
            return ahead
        return None if self._ended else self._receive()

    def _receive(self) -> list[Any] | None:
        try:
            chunk, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, 1024)
        except ConnectionResetError:
            return None
        for _, _, packed in ancillary:
            received = array.array("i")
            received.frombytes(packed[: len(packed) - len(packed) % received.itemsize])
            self._descriptors.extend(received)
        if not chunk:
            return None
        self.bytes_received += len(chunk)
        if not self._partial and len(chunk) == _LENGTH.size + _LENGTH.unpack_from(chunk)[0]:
            return [self._settle(pickle.loads(memoryview(chunk)[_LENGTH.size :]))]
        self._partial += chunk
        return self._split()

    def _split(self) -> list[Any]:
        messages: list[Any] = []
        start, data = 0, self._partial
        with memoryview(data) as view:
            while len(data) - start >= _LENGTH.size:
                end = start + _LENGTH.size + _LENGTH.unpack_from(data, start)[0]
                if end > len(data):
                    break
                messages.append(self._settle(pickle.loads(view[start + _LENGTH.size : end])))
                start = end
        if start:
            del data[:start]
        return messages

    def _settle(self, frame: tuple[Any, ...]) -> Any:
        if len(frame) > 1:
            _, home, gone, arrivals, definitions = frame
            self._lender.take_back(home)
            self._borrower.forget(gone)
            for purpose, nbytes in arrivals:
                if self._descriptors:  # the kernel drops one for which there is no number left
                    self._install(purpose, nbytes, self._descriptors.popleft())
            define(definitions, self.parts)
        return frame[0]

    def _install(self, purpose: int | Key, nbytes: int, descriptor: int) -> None:
        if isinstance(purpose, tuple):
            arrive(purpose, descriptor)
        elif purpose == _TO_BORROW:
            self._borrower.adopt(descriptor)
        elif purpose == _TO_LEND:
            self._lender.use(descriptor)
        elif purpose == _ATTACHED:
            self.attached.append(descriptor)
        else:
            self._borrower.adopt_broadcast(purpose, nbytes, descriptor)

    def open(self, encoded: Encoded) -> Any:
        """The object of a stowed parcel; to be called once, or its segments never come home."""
        return unpack(*self.parts(encoded))

    def parts(self, encoded: Encoded) -> tuple[bytes | memoryview, list[memoryview]]:
        """Data and buffers of a stowed parcel, not yet unpickled."""
        if type(encoded) is bytes:
            return encoded, []
        data, places = encoded
        if type(data) is not bytes:
            data = self._borrow(data)
        if type(places) is tuple:
            return data, self._borrower.claim_broadcast(*places)
        return data, [self._borrow(place) for place in places]

    def _borrow(self, place: Any) -> memoryview:
        if type(place) is bytearray:
            return memoryview(place)
        return self._borrower.view(*place)

    # --- the end ----------------------------------------------------------------------------------

    @property
    def bytes_moved(self) -> int:
        """Bytes that went out and came in through shared memory."""
        return self._lender.bytes_lent + self._borrower.bytes_borrowed

    def shut(self) -> None:
        """Say that nothing more will be sent; what the peer still sends can be read."""
        with contextlib.suppress(OSError):  # the peer is gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket and whatever descriptors wait; views that were handed out stay valid."""
        self._socket.close()
        self._lender.close()
        self._borrower.close()
        self._definitions.close()
        for _, descriptors in self._outbox:
            close_all(descriptors)
        self._outbox.clear()
        close_all([descriptor for _, _, descriptor in self._fresh])
        close_all(self._descriptors)
        self._fresh, self._descriptors = [], deque()

    def after_fork(self) -> None:
        """In a forked copy, which must not hold channels open: workers would never see our end."""
        self._socket.close()
