# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that the program has closed, and given to files of its own."""

from __future__ import annotations

import os
import socket

from teamster.machine.descriptors import Descriptor, OwnedSocket


def test_a_number_that_is_anothers_by_now_stays_open() -> None:
    ours = Descriptor(os.open(os.devnull, os.O_RDONLY))
    stranger, other_end = os.pipe()
    os.dup2(stranger, ours.number)
    number = ours.number
    assert not ours.is_whole()
    ours.close()
    os.write(other_end, b"x")
    assert os.read(number, 1) == b"x"
    for descriptor in (number, stranger, other_end):
        os.close(descriptor)


def test_a_socket_lets_go_of_a_number_that_is_anothers() -> None:
    ours, peer = (OwnedSocket.of(end) for end in socket.socketpair())
    stranger, other_end = socket.socketpair()
    number = ours.fileno()
    os.dup2(stranger.fileno(), number)
    ours.close()
    other_end.send(b"x")
    assert os.read(number, 1) == b"x"
    os.close(number)
    for end in (peer, stranger, other_end):
        end.close()


def test_what_is_whole_is_closed_once() -> None:
    ours = Descriptor(os.open(os.devnull, os.O_RDONLY))
    number = ours.number
    ours.close()
    ours.close()
    assert ours.number == -1
    assert (
        not os.path.exists(f"/proc/self/fd/{number}")
        or os.readlink(f"/proc/self/fd/{number}") != os.devnull
    )
