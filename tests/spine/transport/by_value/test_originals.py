# SPDX-License-Identifier: BSD-3-Clause
"""What ``__main__`` and its like define.

There under one identity, and home as the program's own.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from teamster.spine.transport.by_value import originals

MAIN = """
import abc, collections.abc, copyreg, dataclasses, enum, functools, pickle, sys, threading, typing
import teamster as ts

SCALE = 2
class Base:
    registry = {}
    def __init_subclass__(cls):
        Base.registry[cls.__name__] = cls
class Point(Base):
    def __init__(self, x): self.x = x
    def scaled(self): return self.x * SCALE
    class Inner: pass
class Slotted:
    __slots__ = ("a",)
    def __init__(self, a): self.a = a
@dataclasses.dataclass(slots=True)
class Data: x: int
class Color(enum.Enum): RED = 1
class Bits(enum.Flag): A = 1; B = 2
class Ranks(enum.IntFlag): LOW = 11; HIGH = 37
class Planet(enum.Enum):
    EARTH = (1, "e")
    TERRA = EARTH
    def __init__(self, size, sign): self.size = size; self.sign = sign
    @property
    def shout(self): return self.sign.upper()
class Family:
    def __init_subclass__(cls, /, arg): cls.arg = arg
class Child(Family, arg="told"): pass
class Private:
    __slots__ = ("__secret",)
    def __init__(self, secret): self.__secret = secret
    def tell(self): return self.__secret
Pair = collections.namedtuple("Pair", "a b")
class Typed(typing.NamedTuple): a: int
class Missing:
    def __reduce__(self): return "MISSING"
MISSING = Missing()
T = typing.TypeVar("T")
UserId = typing.NewType("UserId", int)
class Box(typing.Generic[T]): pass
class Shape(abc.ABC): pass
Shape.register(Point)
class Cached:
    n = 3
    @functools.cached_property
    def value(self): return self.n * 2
    @functools.lru_cache(maxsize=8)
    def times(self, n): return self.n * n
    @staticmethod
    def static(n): return n
@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@functools.singledispatch
def kind(value): return "other"
@kind.register
def _(value: int): return "int"
def local():
    class Local: pass
    return Local
Local = local()
def wrap(function):
    @functools.wraps(function)
    def inner(*args): return function(*args)
    return inner
@wrap
def wrapped(n): return n + SCALE
def same(value): return value
class Move(typing.TypedDict, total=False): x: typing.Required[int]; y: int
Spaced = typing.TypedDict("Spaced", {"a b": int})
class Rows:
    def __len__(self): return 1
collections.abc.Sequence.register(Rows)
class Guarded:
    def __init__(self, x): self.x, self.lock = x, threading.Lock()
copyreg.pickle(Guarded, lambda value: (Guarded, (value.x,)))
"""

IDENTITY = """
pool = ts.Pool("process", workers=2, start_method=METHOD)
things = [Point, Point.Inner, Point.scaled, Color, Color.RED, Bits.A, Ranks.HIGH, Planet,
          Planet.EARTH, Child, Pair, Typed, MISSING, Missing, T, UserId, Box, Shape, fib, kind,
          Cached.times, Cached.static, Local, wrapped, same, Slotted, Move, Spaced]
for thing in things:
    assert all(got is thing for got in pool.map(same, [thing] * 3)), thing
    assert all(got is thing for got in pool.map(lambda _: thing, range(3))), thing
assert pool.map(lambda value: value is MISSING, [MISSING, 1]) == [True, False]
for value in [Point(1), Point.Inner(), Slotted(1), Child(), Private(1), Data(1), Pair(1, 2),
              Typed(1), Box(), Cached(), Local()]:
    assert all(type(got) is type(value) for got in pool.map(same, [value] * 3)), value
assert pool.map(lambda n: type(pickle.loads(pickle.dumps(Point(n)))).__name__, [1]) == ["Point"]
assert pool.map(fib, range(9)) == [fib(n) for n in range(9)]
got = pool.map(lambda each: (kind(each), Cached().value, Cached().times(2)), [1, "a"])
assert got == [("int", 6, 6), ("other", 6, 6)]
assert pool.map(lambda n: (lambda: n + SCALE), [1])[0].__globals__ is globals()
assert Base.registry == {"Point": Point} and Base.registry["Point"] is Point
got = pool.map(lambda n: Point(n), range(1_000))
assert [type(each) is Point for each in got] == [True] * 1_000
got = pool.map(lambda each: (each.shout, Planet.TERRA is each, Child.arg), [Planet.EARTH])
assert got == [("E", True, "told")]
assert pool.map(lambda each: each | Ranks.LOW, [Ranks.HIGH]) == [Ranks.LOW | Ranks.HIGH]
assert pool.map(Private.tell, [Private(5)]) == [5]
got = pool.map(lambda each: (isinstance(each, collections.abc.Sequence), Guarded(3)), [Rows()])
assert got[0][0] and type(got[0][1]) is Guarded and got[0][1].x == 3
got = pool.map(lambda n: (Move.__required_keys__, Move(x=n), Spaced.__annotations__), [1])
assert got == [({"x"}, {"x": 1}, {"a b": int})]
print("the same")
"""

CHANGES = """
pool = ts.Pool("process", workers=2)
def by_item(point): return point.scaled()
assert pool.map(by_item, [Point(1)] * 4) == [2] * 4
SCALE = 5
assert pool.map(by_item, [Point(1)] * 4) == [5] * 4
assert pool.map(wrapped, [1]) == [6]
Point.more = 7
assert pool.map(lambda point: point.more, [Point(1)] * 4) == [7] * 4
old = Point
class Point(Base):
    def __init__(self, x): self.x = x
    def scaled(self): return -self.x
assert pool.map(by_item, [Point(1), old(1)]) == [-1, 5]
assert [type(each) for each in pool.map(same, [Point(1), old(1)])] == [Point, old]
made = pool.map(lambda n: type("New", (), {"n": n})(), range(3))
assert [each.n for each in made] == [0, 1, 2]
print("as it is now")
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_things_of_main_are_the_same_everywhere(
    method: str, run_script: Callable[..., Any]
) -> None:
    script = run_script(MAIN + IDENTITY.replace("METHOD", repr(method)), timeout=60)
    assert (script.stdout, script.stderr) == ("the same\n", "")


def test_calls_see_the_program_as_it_is(run_script: Callable[..., Any]) -> None:
    script = run_script(MAIN + CHANGES, timeout=60)
    assert (script.stdout, script.stderr) == ("as it is now\n", "")


def test_a_process_of_multiprocessing_has_another_main(run_script: Callable[..., Any]) -> None:
    script = run_script(
        """
import multiprocessing as mp
import teamster as ts

class Thing: pass

def make(n): return Thing()

def child(connection):
    with ts.Pool("process", workers=2) as pool:
        things = pool.map(make, range(3)) + pool.map(lambda thing: thing, [Thing()])
    connection.send([type(thing) is Thing for thing in things])

if __name__ == "__main__":
    here, there = mp.Pipe()
    process = mp.get_context("spawn").Process(target=child, args=(there,))
    process.start()
    print(here.recv())
    process.join()
""",
        timeout=60,
    )
    assert (script.stdout, script.stderr) == ("[True, True, True, True]\n", "")


def test_a_main_that_maps_while_a_spawned_process_loads_it(run_script: Callable[..., Any]) -> None:
    script = run_script(
        """
import multiprocessing as mp
import teamster as ts

def twice(n): return 2 * n

print(__name__, ts.map(twice, [1, 2], backend="process", workers=2), flush=True)

if __name__ == "__main__":
    process = mp.get_context("spawn").Process(target=print, args=("child",))
    process.start()
    process.join()
""",
        timeout=60,
    )
    assert (script.stdout, script.stderr) == ("__main__ [2, 4]\n__mp_main__ [2, 4]\nchild\n", "")


def test_threads_that_begin_together_have_different_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first keys of a process are made while other threads ask for theirs.

    20 threads, each with its first map.
    """
    keys, random_bytes = list[int](), os.urandom

    def interrupted(count: int) -> bytes:
        monkeypatch.setattr(os, "urandom", random_bytes)
        thread = threading.Thread(target=lambda: keys.append(originals.original_of(lambda: 1).key))
        thread.start()
        thread.join()
        return random_bytes(count)

    monkeypatch.setattr(originals, "_owner", 0)
    monkeypatch.setattr(originals, "_keys", None)
    monkeypatch.setattr(os, "urandom", interrupted)
    keys.append(originals.original_of(lambda: 2).key)
    assert len(set(keys)) == 2
