# SPDX-License-Identifier: BSD-3-Clause
"""What the program has defined and its workers cannot import.

Each thing is one and the same, wherever it travels.

::

    program                                             worker
    class Point   --definition (code, once)----------> a copy, known by the same key
    Point(1, 2)   --recall(definition, key), state---> an instance of that copy
    the very Point  <------------recall(0, key)------- the copy goes home as a reference

A class, function, sentinel or cached function of ``__main__`` (or of any module that travels by
value) has a key from its first journey on. A definition is sent to a worker before the first thing
that needs it, and is opened when that asks for it, so that what does not load is the failure of its
item alone. It is made again for each call, since the program may have changed it, and sent again if
so.
"""

from __future__ import annotations

import itertools
import os
import pickle
import weakref
from collections.abc import Callable
from typing import Any

from teamster.spine.transport.by_value.modules import namespace
from teamster.spine.transport.by_value.told import Told, untouched
from teamster.spine.transport.parcel import Definition


class Original:
    """Something of the program's, known by a key in all of its processes."""

    __slots__ = ("call", "definition", "find", "key", "mine")

    def __init__(self, key: int, find: Callable[[], Any], *, mine: bool) -> None:
        self.key = key
        self.find = find
        self.mine = mine  # of this process, and not a copy
        self.definition: Definition | None = None
        self.call = -1  # during which the definition was made


_by_id: dict[int, Original] = {}
_by_key: dict[int, Original] = {}
_pending: dict[int, Any] = {}  # definitions that were not asked for yet
# What the program has put into namespaces and classes here, by their ids
_planted: dict[int, dict[str, Told]] = {}
# What a forked copy of the program had in __main__ from the beginning
_inherited: dict[str, Any] = {}
_numbers = itertools.count(1)
_keys: Any = None
_owner = 0  # the process that these keys belong to
on_gone: set[Callable[[int], None]] = set()
"""Told the keys of originals that the program has let go of, in whatever thread that shows."""

call = 0  # what is sent is as the program has it when a call begins


# --- in the program -------------------------------------------------------------------------------


def original_of(value: Any) -> Original:
    """What is known of `value`, which gets a key where it has none."""
    original = _by_id.get(id(value))
    if original is not None:
        return original
    key, identity = _next_key(), id(value)
    try:
        find: Callable[[], Any] = weakref.ref(value, lambda _: _forget(identity, key))
    except TypeError:
        find = lambda: value  # noqa: E731
    original = _by_id.setdefault(identity, Original(key, find, mine=True))
    _by_key[original.key] = original
    return original


def _next_key() -> int:
    """Keys of different processes differ: a worker may have workers of its own."""
    global _keys, _owner
    if _owner != os.getpid():
        _keys = itertools.count(int.from_bytes(os.urandom(5), "little") << 22)
        _owner = os.getpid()  # at last: other threads may ask meanwhile
    key: int = next(_keys)
    return key


def _forget(identity: int, key: int) -> None:
    if (original := _by_key.pop(key, None)) is not None and _by_id.get(identity) is original:
        del _by_id[identity]
    for note_gone in list(on_gone):
        note_gone(key)


def next_number() -> int:
    """The number of a new definition."""
    return next(_numbers)


def begin_call() -> None:
    """Definitions are made again from now on, since the program may have changed what they say."""
    global call
    call += 1


# --- in a worker ----------------------------------------------------------------------------------


def become_worker(*, forked: dict[str, Any] | None) -> None:
    """From now on what is known here is the program's.

    `forked`: the ``__main__`` that a forked copy of it has.
    """
    for original in list(_by_key.values()):
        original.mine = False
    if forked is not None:
        _planted[id(forked)] = {name: Told(value) for name, value in forked.items()}
        _inherited.update(forked)


def is_inherited(name: str, main: dict[str, Any]) -> bool:
    """Whether something of ``__main__`` is what the program had there when it was forked."""
    top = name.partition(".")[0]
    return top in _inherited and main.get(top) is _inherited[top]


def is_planted(values: dict[str, Any], name: str) -> bool:
    """Whether a global of the namespace `values` is as the program has it."""
    return name in (planted := _planted.get(id(values), {})) and planted[name].value is values.get(
        name
    )


def expect(number: int, data: Any) -> None:
    """Keep a definition until it is asked for."""
    _pending[number] = data


def recall(number: int, key: int) -> Any:
    """The thing with this key, as definition `number` has it; 0: as it is here.

    Raises:
        LookupError: the program has let go of it meanwhile.
        Exception: what came up when its definition was opened.
    """
    if number in _pending:
        pickle.loads(_pending[number])
        _pending.pop(number, None)
    original = _by_key.get(key)
    value = None if original is None else original.find()
    if value is None:
        raise LookupError(
            "a class or function that the program has let go of, or that this process has never "
            "seen"
        )
    return value


def let_go(keys: list[int]) -> None:
    """Forget the copies of originals that are gone."""
    for key in keys:
        if (original := _by_key.pop(key, None)) is not None:
            identity = id(original.find())
            _by_id.pop(identity, None)
            _planted.pop(identity, None)


def known(value: Any) -> Original | None:
    """What is known of something that has travelled before."""
    return _by_id.get(id(value))


def obtain(
    key: int, place: tuple[str, str] | None, make: Callable[..., Any], *arguments: Any
) -> Any:
    """The copy with this key, made now where there is none yet, and put where the program has it.

    `place` is the module and the name there.
    """
    original = _by_key.get(key)
    value = None if original is None else original.find()
    if value is None:
        value = make(*arguments)
        _by_key[key] = _by_id[id(value)] = Original(key, lambda: value, mine=False)
        if place is not None:
            plant(namespace(place[0]), {place[1]: value})
    return value


def is_mine(value: Any) -> bool:
    """Whether it is the program's own, and this the program.

    Then nothing that came from elsewhere may change it.
    """
    original = _by_id.get(id(value))
    return original is not None and original.mine


def plant(values: dict[str, Any], told: dict[str, Any]) -> None:
    """Set globals as the program has them; those that the worker itself has changed meanwhile stay.

    The initializer may have replaced some of them (``db = connect()``), or what is in them
    (``state["db"] = connect()``); a later function must find that and not the ``None`` of the
    program.
    """
    planted = _planted.setdefault(id(values), {})
    values.update(news := untouched(planted, values, told))
    planted.update({name: Told(value) for name, value in news.items()})


def fill_class(
    kind: type, attributes: dict[str, Any], fill: Callable[[dict[str, Any]], Any]
) -> None:
    """Have a copy of a class filled with attributes.

    Those that the worker itself has changed meanwhile stay.
    """
    planted = _planted.get(id(kind))
    news = attributes if planted is None else untouched(planted, vars(kind), attributes)
    fill(news)
    now = vars(kind)
    _planted.setdefault(id(kind), {}).update(
        {name: Told(now[name]) for name in news if name in now}
    )
