# SPDX-License-Identifier: BSD-3-Clause
"""What a worker has changed in what it was told."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from teamster.spine.transport.by_value.told import Told

PROGRAM = """
import types
import teamster as ts

STATE, LIST, SPACE = {"size": 3}, [], types.SimpleNamespace()
class Config:
    value = None
    table = {}
class Slotted:
    __slots__ = ("value",)
SLOTTED = Slotted()
SLOTTED.value = None
def prepare(value):
    STATE["value"] = SPACE.value = Config.value = Config.table["value"] = SLOTTED.value = value
    LIST.append(value)
def look(_):
    return STATE.get("value"), SPACE.value, Config.value, Config.table, SLOTTED.value, LIST
def count(_):
    STATE["calls"] = STATE.get("calls", 0) + 1
    return STATE["size"], STATE["calls"]

with ts.Pool("process", workers=1, initializer=prepare, initargs=(5,)) as pool:
    seen = pool.map(look, [0])
    assert seen == pool.map(lambda n: look(n), [0]) == [(5, 5, 5, {"value": 5}, 5, [5])]
    assert pool.map(count, [0]) == [(3, 1)]
    STATE["size"] = 4
    assert pool.map(count, [0]) == [(4, 2)]
    assert pool.map(look, [0]) == [(5, 5, 5, {"value": 5}, 5, [5])]
assert STATE == {"size": 4}
print("kept")
"""


def test_what_an_initializer_puts_into_globals_stays(run_script: Callable[..., Any]) -> None:
    script = run_script(PROGRAM, timeout=60)
    assert (script.stdout, script.stderr) == ("kept\n", "")


def test_changes_of_both_sides_meet() -> None:
    space = SimpleNamespace(a=1, b=2, c=3, d=4)
    told = Told(space)
    assert told.is_untouched()
    space.b, space.here = 20, 5
    del space.d
    assert not told.is_untouched()
    told.learn(SimpleNamespace(a=10, b=21, d=4, there=6))
    assert vars(space) == {"a": 10, "b": 20, "here": 5, "there": 6}
    told.learn(SimpleNamespace(a=11, b=22))
    assert vars(space) == {"a": 11, "b": 20, "here": 5}
