# SPDX-License-Identifier: BSD-3-Clause
"""Channels: whole messages, large buffers beside them, descriptors, back-pressure without a
deadlock.
"""

import gc
import os
import resource
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from teamster.spine.transport.arena import Broadcast
from teamster.spine.transport.channel import Channel
from teamster.spine.transport.pickled import pack
from teamster.spine.transport.sockets import pair


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = pair()
    left, right = Channel(ours, blocking=True), Channel(theirs, blocking=True)
    yield left, right
    left.close()
    right.close()


def receive(channel: Channel) -> Any:
    """One message, however many reads it takes."""
    while not (messages := channel.take()):
        assert messages is not None
    assert len(messages) == 1
    return messages[0]


def send_large(left: Channel, right: Channel, value: object) -> Any:
    left.put((left.stow(pack(value)),))
    return right.open(receive(right)[0])


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    for number in range(100):
        left.put((number, "x" * number))
    received: list[Any] = []
    while len(received) < 100:
        received += right.take() or []
    assert received == [(number, "x" * number) for number in range(100)]


def test_end_of_stream_is_none(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.put(("last",))
    left.close()
    assert right.take() == [("last",)]
    assert right.take() is None


def test_arrays_arrive_as_writable_views_of_reused_memory(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    array = np.arange(1_000_000)
    for _ in range(5):
        received = send_large(left, right, array)
        assert (received == array).all()
        received[0] = 7  # ours: the sender does not use this memory
        del received
        right.put(("thanks",))
        receive(left)
    assert array[0] == 0
    assert len(right._borrower._windows) == 1


def test_a_segment_is_not_reused_while_any_view_lives(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    first = send_large(left, right, np.full(1_000_000, 1))
    part = first[10:20]
    del first
    gc.collect()
    assert not right.owes_segments
    right.put(("nothing to return",))
    receive(left)
    second = send_large(left, right, np.full(1_000_000, 2))
    assert part.tolist() == [1] * 10
    assert second[0] == 2
    del part
    assert right.owes_segments


def test_views_outlive_the_channel() -> None:
    ours, theirs = pair()
    left, right = Channel(ours, blocking=True), Channel(theirs, blocking=True)
    received = send_large(left, right, np.full(1_000_000, 3))
    left.close()
    right.close()
    gc.collect()
    assert received.sum() == 3_000_000


def test_a_segment_that_came_home_unread_is_lent_again(ends: tuple[Channel, Channel]) -> None:
    """A busy worker made new segments while those that came home waited in its socket.

    Each cost 20 to 70 ms for 40 MB.
    """
    left, right = ends
    received = send_large(left, right, np.arange(20_000))
    del received
    gc.collect()
    right.put(("next batch",))
    left.put((left.stow(pack(np.arange(20_000))),))
    assert len(left._lender._allocated) == 1
    assert right.open(receive(right)[0]).sum() == sum(range(20_000))
    left.await_input()  # returns, since there is something to take, though not in the socket
    assert left.take() == [("next batch",)]
    right.put(("last",))
    right.close()
    left._read_ahead()
    assert left.take() == [("last",)]
    assert left.take() is None


def test_long_pickles_go_through_shared_memory(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    text = "word " * 200_000
    assert send_large(left, right, text) == text
    assert left.bytes_moved >= len(text)
    assert left.bytes_sent < 1_000


def test_broadcast_is_private_to_each_receiver(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    parcel = pack(np.ones(100_000))
    broadcast = Broadcast(parcel.buffers)
    left.put((left.stow_broadcast(parcel, broadcast),))
    mine = right.open(receive(right)[0])
    mine[:] = 5
    left.put((left.stow_broadcast(parcel, broadcast),))
    assert right.open(receive(right)[0]).sum() == 100_000
    broadcast.close()


def test_without_shared_memory_the_socket_carries_everything(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    monkeypatch.delattr(os, "memfd_create")
    array = np.arange(20_000)  # fits the socket's buffer: both ends are in this thread
    with pytest.warns(RuntimeWarning, match="no anonymous shared memory"):
        received = send_large(left, right, array)
    assert (received == array).all()
    assert received.flags.writeable


def test_full_shared_memory_is_seen_before_a_page_is_touched(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.warns(RuntimeWarning, match="copied through a socket"):
            received = send_large(left, right, np.arange(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert received.sum() == sum(range(20_000))


def test_two_sides_that_send_at_once_do_not_stop_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trap 23: the parent does not block, so the worker's result and the parent's argument pass
    each other.
    """
    monkeypatch.delattr(os, "memfd_create")
    ours, theirs = pair()
    parent, worker = Channel(ours, blocking=False), Channel(theirs, blocking=True)
    big = np.zeros(700_000)  # 5.6 MB, far beyond any socket buffer

    def work() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            worker.put((worker.stow(pack(big)),))
        while not worker.take():
            pass

    with pytest.warns(RuntimeWarning):
        encoded = parent.stow(pack(big))
    assert not parent.put((encoded,))
    thread = threading.Thread(target=work)
    thread.start()
    received = None
    while received is None or thread.is_alive():
        parent.flush()
        try:
            messages = parent.take()
        except BlockingIOError:
            continue
        if messages:
            received = parent.open(messages[0][0])
    thread.join()
    assert received.shape == big.shape
    parent.close()
    worker.close()


def test_corked_messages_leave_together(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.cork()
    left.put((1,))
    left.put((2,))
    left.uncork()
    left.put((3,))
    received: list[Any] = []
    while len(received) < 3:
        received += right.take() or []
    assert received == [(1,), (2,), (3,)]


def test_what_is_kept_costs_no_descriptors(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    kept = [send_large(left, right, np.full(5_000, 0))]
    before = len(os.listdir("/proc/self/fd"))
    kept += [send_large(left, right, np.full(5_000, number)) for number in range(1, 500)]
    kept += [send_large(left, right, np.full(1_000_000, number)) for number in range(500, 503)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert [array[-1] for array in kept] == list(range(503))


def test_many_arrays_in_one_message(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    arrays = send_large(left, right, [np.full(5_000, number) for number in range(1_000)])
    assert [array[7] for array in arrays] == list(range(1_000))


def test_given_up_segments_are_used_again(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teamster.spine.transport.arena.MAX_IDLE_BYTES", 0)
    left, right = ends
    for nbytes in (40_000, 10_000_000):
        for number in range(5):
            received = send_large(left, right, np.full(nbytes, number, np.uint8))
            assert received.sum() == nbytes * number
            del received
            right.put(("home",))
            receive(left)
        assert sum(left._lender._allocated.values()) == 0


def test_without_mappings_the_file_is_read_and_written(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("too many mappings")

    monkeypatch.setattr("teamster.spine.transport.arena.MappedFile", refuse)
    left, right = ends
    for number in range(3):
        received = send_large(left, right, np.full(1_000_000, number))
        assert received.sum() == 1_000_000 * number
        received[0] = 7
    with pytest.raises(OSError, match="too many mappings"):
        Broadcast([memoryview(bytes(8_000_000))])


@pytest.mark.parametrize("limit", [256, 1_024])
def test_thousands_of_results_under_a_limit_of_descriptors(limit: int, run_script: Any) -> None:
    script = run_script(
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
        "import numpy as np, teamster as ts\n"
        "def array(n): return np.full(5_000, float(n))\n"
        "def total(arrays): return sum(each[0] for each in arrays)\n"
        "kept = ts.map(array, range(1_500), backend='process', workers=2)\n"
        "print([each[0] for each in kept] == list(range(1_500)))\n"
        "print(ts.map(total, [kept[:300]] * 4, backend='process', workers=2) == [sum(range(300))] "
        "* 4)\n",
        timeout=60,
    )
    assert (script.stdout, script.stderr) == ("True\nTrue\n", "")


@pytest.mark.parametrize("nbytes", [10, 500_000])
def test_a_peer_that_died_is_no_signal(nbytes: int, run_script: Any) -> None:
    script = run_script(
        "import os, signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "import teamster as ts\n"
        "def die(item): os.kill(os.getpid(), signal.SIGKILL) if item[0] % 5 == 3 else None\n"
        f"got = ts.map(die, ((n, b'x' * {nbytes}) for n in range(20)), backend='process', "
        "workers=2, on_error='return')\n"
        "print(sum(each is None for each in got))\n",
        timeout=60,
    )
    assert (script.stdout, script.returncode) == ("16\n", 0)
