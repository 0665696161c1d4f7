# SPDX-License-Identifier: BSD-3-Clause
"""Locks that a script has among its globals, and in its classes."""

from tests.conftest import RunScript

SCRIPT = """
import threading
import teamster as ts

LOCK, AGAIN = threading.Lock(), threading.RLock()
total = 0

class Counter:
    guard = threading.Lock()
    def step(self, number):
        with self.guard, LOCK:
            return number + 1

def first(number):
    with LOCK, AGAIN, AGAIN:
        return number, id(LOCK), id(AGAIN), id(Counter.guard)

def second(number):
    with LOCK:
        return number, id(LOCK), id(AGAIN), id(Counter.guard)

if __name__ == "__main__":
    with ts.Pool("process", 1) as pool:
        pool.map(Counter().step, range(3))
        print(len({each[1:] for each in pool.map(first, range(5)) + pool.map(second, range(5))}))
        print(pool.map(Counter().step, range(3)), list(pool.imap(first, range(3)))[2][0])
    print(ts.map(lambda number: number, range(3), backend="process"))
    with LOCK:
        print(ts.map(Counter().step, range(3), backend="process"))
    try:
        ts.map(lambda number, lock=threading.Lock(): number, range(3), backend="process")
    except ts.TransferError as error:
        print("a lock that is nobody's global is refused:", "lock" in str(error))
    print(LOCK.locked(), Counter.guard.locked())
"""


def test_each_process_has_its_own(run_script: RunScript) -> None:
    """`cannot pickle '_thread.lock' object`, which no process that imports the script says."""
    script = run_script(SCRIPT)
    assert script.stdout.splitlines() == [
        "1",
        "[1, 2, 3] 2",
        "[0, 1, 2]",
        "[1, 2, 3]",
        "a lock that is nobody's global is refused: True",
        "False False",
    ]


OTHERS = """
import queue, threading
import teamster as ts

STOP, READY = threading.Event(), threading.Condition()
SLOTS, MINE = threading.Semaphore(2), threading.local()
INBOX = queue.Queue(3)
GUARD = threading.Lock()
CHANGED = threading.Condition(GUARD)

def look(number):
    with READY, SLOTS:
        INBOX.put(number)
        return STOP.is_set(), INBOX.get(), INBOX.maxsize, vars(MINE)

def by_text(number):
    return eval("STOP").is_set(), globals()["GUARD"].locked()

def wait(number):
    with GUARD:
        CHANGED.notify()

if __name__ == "__main__":
    with ts.Pool("process", 1) as pool:
        print(pool.map(look, [1]), pool.map(by_text, [1]))
        STOP.set()
        print(pool.map(look, [1]), pool.map(by_text, [1]))
        INBOX.put("an item that each process would have")
        for function in (look, wait):
            try:
                print(pool.map(function, [1]))
            except ts.TransferError:
                print("refused")
"""


def test_events_queues_and_the_like_are_each_process_s_own(run_script: RunScript) -> None:
    """A flag is what the program has; what is in a queue would be there once for each process."""
    script = run_script(OTHERS)
    assert script.stdout.splitlines() == [
        "[(False, 1, 3, {})] [(False, False)]",
        "[(True, 1, 3, {})] [(True, False)]",
        "refused",
        "refused",
    ], script.stderr
