# SPDX-License-Identifier: BSD-3-Clause
"""Locks, queues, shared values, connections and sockets on their way to workers."""

from __future__ import annotations

import multiprocessing
import os
import socket
from typing import Any

import pytest

import teamster as ts
from teamster.spine.transport.pickled import pack
from tests.conftest import RunScript

INITARGS = """
import multiprocessing, sys
from functools import partial
import teamster as ts

shared = None

def keep(value):
    global shared
    shared = value

def count(value, n):
    with value.get_lock():
        value.value += 1
    return n

def put(queue, n):
    queue.put(n)
    return n

def fill(array, n):
    array[n] = n + 1
    return n

def awaited(event, n):
    assert event.wait(10)
    return n

def locked(lock, n):
    with lock:
        return n

def send(connection, n):
    connection.send(n)
    return n

def by_initializer(function, n):
    return function(shared, n)

start_method = sys.argv[1]
context = multiprocessing.get_context(start_method)
counter, queue = context.Value("i", 0), context.SimpleQueue()
array, event, buffered = context.Array("i", 4), context.Event(), context.Queue()
event.set()
receiver, sender = context.Pipe(duplex=False)
for function, value in [
    (count, counter), (put, queue), (locked, context.Lock()), (locked, context.RLock()),
    (send, sender), (fill, array), (awaited, event), (put, buffered), (locked, context.Semaphore()),
]:
    with ts.Pool(
        "process", workers=2, start_method=start_method, initializer=keep, initargs=(value,)
    ) as pool:
        assert pool.map(partial(by_initializer, function), range(4)) == [0, 1, 2, 3]
    if start_method != "fork":  # what those have is what the initializer brought along
        got = ts.map(partial(function, value), range(4), backend="process", workers=2)
        assert got == [0, 1, 2, 3]
expected = sorted([0, 1, 2, 3] * (1 if start_method == "fork" else 2))
assert counter.value == len(expected)
assert array[:] == [1, 2, 3, 4]
assert sorted(buffered.get(timeout=20) for _ in expected) == expected
assert sorted(queue.get() for _ in expected) == expected
assert sorted(receiver.recv() for _ in expected) == expected
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
def test_they_come_as_initargs_and_with_the_function(
    run_script: RunScript, start_method: str
) -> None:
    script = run_script(INITARGS, start_method, timeout=60)
    assert (script.returncode, script.stderr) == (0, "")


def echo(connection: Any) -> str:
    connection.send("to " + connection.recv())
    return str(os.getpid())


def answer(end: socket.socket) -> int:
    end.sendall(end.recv(10).upper())
    return end.fileno()


def test_connections_and_sockets_are_items_and_end_with_them() -> None:
    pairs = [multiprocessing.Pipe() for _ in range(6)]
    ends = [socket.socketpair() for _ in range(6)]
    with ts.Pool("process", workers=2) as pool:
        for ours, _ in pairs:
            ours.send("you")
        for near, _ in ends:
            near.sendall(b"you")
        assert len(pool.map(echo, [theirs for _, theirs in pairs])) == 6
        pool.map(answer, [theirs for _, theirs in ends])
        for ours, theirs in pairs:
            theirs.close()
            assert ours.recv() == "to you"
            with pytest.raises(EOFError):  # nobody has kept the other end
                ours.recv()
            ours.close()
        for near, far in ends:
            far.close()
            assert near.recv(10) == b"YOU"
            near.close()


def new_pipe(n: int) -> Any:
    ours, theirs = multiprocessing.Pipe()
    ours.send(n)
    return theirs


def test_connections_are_results() -> None:
    connections = ts.map(new_pipe, range(4), backend="process", workers=2)
    assert [connection.recv() for connection in connections] == [0, 1, 2, 3]
    for connection in connections:
        connection.close()


def keep(_: object) -> None:
    pass


def test_what_was_made_for_forks_says_what_to_make() -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(RuntimeError, match="fork context") as caught:
        ts.map(abs, [1], backend="process", initializer=keep, initargs=(lock,))
    assert "get_context('forkserver')" in "".join(getattr(caught.value, "__notes__", []))


def test_a_parcel_that_is_never_sent_leaves_no_descriptor() -> None:
    ours, theirs = multiprocessing.Pipe()
    before = len(os.listdir("/proc/self/fd"))
    parcel = pack([ours, theirs])
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del parcel
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()
