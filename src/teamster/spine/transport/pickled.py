# SPDX-License-Identifier: BSD-3-Clause
"""Objects to bytes and back: plain pickle where it serves, by value where it must.

::

    object --pickle 5-------------> data + buffers    (the fast path: C code, no look at the object)
       |
       +--names ``__main__``, or plain pickle refuses--> pickler.py

    pack            arguments      definitions of ``__main__`` by key, sent once beside them
    pack_function   functions      definitions of ``__main__`` inside, as they are now
    pack_home       results        what came from the program goes back as the program's own

Large buffers (NumPy arrays, CPU torch tensors, ``pickle.PickleBuffer``) are left out of the data,
to travel without a copy.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from teamster.spine.transport import mapped_files, multiprocessing_objects
from teamster.spine.transport.by_value import modules, originals, sentinels
from teamster.spine.transport.multiprocessing_objects import Passing
from teamster.spine.transport.parcel import Definition, Parcel, keep_inside
from teamster.spine.transport.tensors import reducers

_PROTOCOL = 5  # the first with buffers beside the pickle (PEP 574)

Keep = Callable[[pickle.PickleBuffer], bool]


def pack(value: object) -> Parcel:
    """Pickle `value`, by reference where possible and by value where needed.

    Raises:
        Exception: it does not pickle by value either.
    """
    return (None if _is_named_by_value(value) else pack_by_reference(value)) or pack_by_value(value)


def pack_by_reference(value: object) -> Parcel | None:
    """Pickle `value` as plain pickle does; None where that would not serve a worker."""
    buffers: list[memoryview] = []
    with Passing() as passed:
        data = _dump_by_reference(value, lambda buffer: keep_inside(buffer, buffers))
    return None if data is None else Parcel(data, buffers, _places_for(data), passed)


def pack_plain(value: object) -> Parcel:
    """Pickle `value` for a program of its own: what is of ``__main__`` is found there by name.

    Raises:
        Exception: it does not pickle.
    """
    buffers: list[memoryview] = []
    data = _dump_plain(value, lambda buffer: keep_inside(buffer, buffers))
    return Parcel(data, buffers)


def pack_by_value(value: object) -> Parcel:
    """Pickle `value`.

    Functions and classes that the worker cannot import are known by key, and their definitions
    needed.
    """
    from teamster.spine.transport.by_value.pickler import ItemPickler

    parcel = ItemPickler.pack(value)
    if modules.places:
        texts = parcel.data, *(definition.data for definition in parcel.needs)
        parcel.needs = *parcel.needs, *(place for text in texts for place in _places_for(text))
    return parcel


def pack_function(value: object) -> Parcel:
    """Pickle what a call runs, with the definitions of all that it uses as they are now.

    Raises:
        Exception: it does not pickle by value either.
    """
    modules.survey()
    originals.begin_call()
    parcel = pack_by_reference(value)
    if parcel is None:
        from teamster.spine.transport.by_value.pickler import DefinitionPickler

        parcel = DefinitionPickler.pack(value)
        parcel.needs = *parcel.needs, *_places_for(parcel.data)
    return parcel


def pack_home(value: object) -> Parcel:
    """Pickle `value` in a worker for the program.

    What came from there goes back as the program's own.

    Raises:
        Exception: it does not pickle by value either.
    """
    if not _is_named_by_value(value):
        buffers: list[memoryview] = []
        with Passing() as passed:
            data = _dump_by_reference(value, lambda buffer: keep_inside(buffer, buffers))
        if data is not None:
            return Parcel(data, buffers, (), passed)
    from teamster.spine.transport.by_value.pickler import HomePickler

    return HomePickler.pack(value)


def pack_whole(value: object, *, home: bool = False) -> bytes:
    """Pickle `value` as `pack_function` (or `pack_home`) does, with its buffers inside.

    Raises:
        Exception: it does not pickle by value either.
    """
    data = _dump_by_reference(value, lambda _: True)
    if data is not None:
        return data
    from teamster.spine.transport.by_value.pickler import DefinitionPickler, HomePickler

    return (HomePickler if home else DefinitionPickler).pack(value, whole=True).data


def unpack(data: bytes | memoryview, buffers: list[memoryview]) -> Any:
    """The object back from its data and buffers; the arrays in it are views of `buffers`."""
    return pickle.loads(data, buffers=buffers) if buffers else pickle.loads(data)


def _is_named_by_value(value: object) -> bool:
    """Whether plain pickle need not be tried, as far as the first item of a list tells."""
    return type(value) is list and bool(value) and type(value[0]).__module__ in modules.by_value


def _dump_by_reference(value: object, keep: Keep) -> bytes | None:
    try:
        data = _dump_plain(value, keep)
    except Exception:
        return None
    return None if modules.named_by_value(data) or sentinels.may_hold_one(data) else data


def _dump_plain(value: object, keep: Keep) -> bytes:
    table = reducers(mapped_files.reducers(multiprocessing_objects.reducers()))
    if table is None:
        return pickle.dumps(value, _PROTOCOL, buffer_callback=keep)
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, _PROTOCOL, buffer_callback=keep)
    pickler.dispatch_table = table
    pickler.dump(value)
    return stream.getvalue()


def _places_for(data: bytes) -> tuple[Definition, ...]:
    """What must be told of modules that only this program finds."""
    if not modules.places:
        return ()
    places = modules.places_named(data)
    return (Definition(0, places),) if places else ()
