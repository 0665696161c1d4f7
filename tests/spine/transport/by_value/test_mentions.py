# SPDX-License-Identifier: BSD-3-Clause
"""Globals of the program that a task looks for by a text."""

from collections.abc import Callable
from typing import Any

PROGRAM = """
from __future__ import annotations
import builtins, dataclasses, gettext, importlib, os, pickle, sys, threading, typing
import teamster as ts

gettext.install("app")
builtins.profile = lambda function: function
LOCK = threading.Lock()  # does not travel, and need not
TABLE = list(range(20_000))  # is large
FACTOR = 3
ROWS = {"a": [1]}
SAME = ROWS
class NoNumber:  # pickles, and does not load
    def __reduce__(self): return int, ("no number",)
class Elsewhere:  # does not load in another process
    def __reduce__(self): return check, (os.getpid(),)
def check(pid):
    if pid != os.getpid(): raise OSError("not here")
    return Elsewhere()
NO_NUMBER, ELSEWHERE = NoNumber(), Elsewhere()
def uses_no_number(n): return NO_NUMBER
class Item: pass
@dataclasses.dataclass
class Order: item: Item
class Base:
    @classmethod
    def find(cls, name): return next(each for each in cls.__subclasses__() if each.__name__ == name)
class Derived(Base): pass
def do_this(n): return n * FACTOR
def by_name(n): return globals()["do_" + "this"](n)
def by_text(n): return eval("do_this(n)")
def by_module(n):
    return sys.modules["__main__"].do_this(n), importlib.import_module("__main__").FACTOR
def by_own_name(n): return getattr(sys.modules[__name__], "FACTOR")
def by_import(n):
    from __main__ import do_this as it
    return it(n)
def by_pickle(n): return type(pickle.loads(ITEM)).__name__
def by_hints(n): return typing.get_type_hints(Order)["item"].__name__
def by_subclass(n): return Base.find("Derived").__name__
def by_builtins(n): return _("text"), profile(n)
def orders(n): return Order(n)
ITEM = pickle.dumps(Item())

with ts.Pool("process", workers=2) as pool:
    for function in [value for name, value in list(globals().items()) if name.startswith("by_")]:
        assert pool.map(function, [1, 2]) == [function(1), function(2)], function
    assert typing.get_type_hints(type(pool.map(orders, [1])[0])) == {"item": Item}
    assert pool.map(lambda n: "TABLE" in globals(), [1]) == [False]
    assert pool.map(lambda n: "NO_NUMBER" in globals(), [1]) == [False]
    assert pool.map(lambda n: "ELSEWHERE" in globals(), [1]) == [False]
    assert pool.map(lambda n: globals()["SAME"] is ROWS, [1]) == [True]
print("found")
"""

STRUCTURES = """
import ctypes
import teamster as ts

class Point(ctypes.Structure): _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]
class Line(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("ends", Point * 2), ("kind", ctypes.c_char)]
class Bytes(ctypes.Union): _fields_ = [("number", ctypes.c_uint32), ("bytes", ctypes.c_ubyte * 4)]
class Header(ctypes.BigEndianStructure): _fields_ = [("size", ctypes.c_uint16)]
class Node(ctypes.Structure): pass
Node._fields_ = [("value", ctypes.c_int), ("next", ctypes.POINTER(Node))]
def same(value): return value

values = [
    Point(1, 2.5), Line((Point * 2)(Point(1, 2), Point(3, 4)), b"k"), Bytes(258), Header(258),
    (ctypes.c_int * 3)(1, 2, 3),
]
with ts.Pool("process", workers=2) as pool:
    for _ in range(2):
        got = pool.map(same, values)
        expected = [(type(each), bytes(each)) for each in values]
        assert [(type(each), bytes(each)) for each in got] == expected
        sizes = pool.map(lambda n: (Node(n).value, ctypes.sizeof(Line)), [3])
        assert sizes == [(3, ctypes.sizeof(Line))]
        Point.more = 3  # so that it is sent again
print("the same")
"""


def test_what_is_looked_up_by_a_text_is_there(run_script: Callable[..., Any]) -> None:
    script = run_script(PROGRAM, timeout=60)
    assert (script.stdout, script.stderr) == ("found\n", "")


def test_structures_of_ctypes(run_script: Callable[..., Any]) -> None:
    script = run_script(STRUCTURES, timeout=60)
    assert (script.stdout, script.stderr) == ("the same\n", "")
