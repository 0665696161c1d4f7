# SPDX-License-Identifier: BSD-3-Clause
"""Arrays that are mapped files: the other process maps the file, too.

::

    numpy.memmap --reduce_mapped--> path, which file that is, place, shape --open_mapped--> memmap
         |                                                                    of the same pages
         +-- copied where the file has no name any more, or changes are the array's own ("c")

So an array that is larger than the memory travels, and what a worker writes into one that may be
written to is in the file, as it would be in the plain loop.
"""

from __future__ import annotations

import copyreg
import mmap
import os
import sys
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

from teamster.spine.transport.mapping import MappedFile

Reducers = dict[Any, Callable[[Any], Any]]
Identity = tuple[int, int]  # device and inode

_DELETED = " (deleted)"  # how /proc marks a name that leads elsewhere, or nowhere

_table: Reducers = {}
_made_of: tuple[object, int] = None, 0  # which table, and how many entries it had
_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()  # of the program's own
_mappings: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()


def reducers(known: Reducers | None) -> Reducers | None:
    """A dispatch table of mapped arrays and what is `known` else.

    It is None where plain pickle serves, which knows `copyreg` itself.
    """
    global _made_of, _table
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "memmap"):
        return known
    others = copyreg.dispatch_table if known is None else known
    if _made_of != (id(others), len(others)):
        _table = {**others, numpy.memmap: reduce_mapped}
        _made_of = id(others), len(others)
    return _table


def reduce_mapped(array: Any) -> Any:
    """Reduce a `numpy.memmap` to its file and its place in there; to its values otherwise."""
    if not array.size or array.mode not in ("r", "r+", "w+") or (path := _path_of(array)) is None:
        return _as_mapped, (array.view(sys.modules["numpy"].ndarray),)
    found = os.stat(path)
    writable = array.mode != "r"
    layout = array.dtype, array.shape, array.strides, array.flags.writeable
    identity = found.st_dev, found.st_ino
    return open_mapped, (path, identity, writable, _position_of(array), layout)


def _path_of(array: Any) -> str | None:
    """Where other processes find the file; None where they do not."""
    if array.filename is None or array._mmap is None:
        return None
    path = _names.get(array._mmap)
    if path is None:
        path = _names[array._mmap] = _name_in_maps(_address_of(array._mmap))
    wanted = os.R_OK if array.mode == "r" else os.R_OK | os.W_OK
    try:
        is_it = path == os.path.realpath(array.filename) and os.access(path, wanted)
    except (OSError, ValueError):
        return None
    return path if is_it else None


def _name_in_maps(address: int) -> str:
    """The name of the file that is mapped there; empty where there is none any more."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            places, *_, name = line.rstrip("\n").split(maxsplit=5)
            start, _, end = places.partition("-")
            if int(start, 16) <= address < int(end, 16):
                return "" if name.endswith(_DELETED) else name.replace("\\012", "\n")
    return ""


def _address_of(memory: Any) -> int:
    frombuffer = sys.modules["numpy"].frombuffer
    address: int = frombuffer(memory, "u1", 1).__array_interface__["data"][0]
    return address


def _position_of(array: Any) -> int:
    """Of its first element in the file (bytes)."""
    start: int = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    address: int = array.__array_interface__["data"][0]
    return start + address - _address_of(array._mmap)


def _as_mapped(array: Any) -> Any:
    return array.view(sys.modules["numpy"].memmap)


def open_mapped(
    path: str, identity: Identity, writable: bool, position: int, layout: tuple[Any, ...]
) -> Any:
    """The array back, as a view of the file.

    Args:
        path: of the file.
        identity: which file that was.
        writable: whether the array may be written to; then so is the file.
        position: of the first element, in bytes.
        layout: its dtype, shape, strides (bytes), and whether this view may be written to.

    Raises:
        FileNotFoundError: the file was removed or replaced since.
    """
    np = import_module("numpy")  # the sender had it, so this process can load it
    dtype, shape, strides, is_writeable = layout
    memory = _map(path, identity, writable, _end(position, shape, strides) + dtype.itemsize)
    array: Any = np.ndarray.__new__(np.memmap, shape, dtype, memory, position, strides)
    array._mmap, array.offset = memory, 0
    array.filename, array.mode = path, "r+" if writable else "r"
    array.flags.writeable = is_writeable
    return array


def _end(position: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Where the last element in the file begins (bytes)."""
    steps = zip(shape, strides, strict=True)
    return position + sum((count - 1) * max(stride, 0) for count, stride in steps)


def _map(path: str, identity: Identity, writable: bool, nbytes: int) -> Any:
    """The whole file, mapped once for all arrays that are in it."""
    key = *identity, writable
    memory = _mappings.get(key)
    if memory is not None and len(memory) >= nbytes:
        return memory
    descriptor = os.open(path, os.O_CLOEXEC | (os.O_RDWR if writable else os.O_RDONLY))
    try:
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino) != identity or found.st_size < nbytes:
            raise FileNotFoundError(
                f"{path}, of which an array is mapped, was removed, replaced or shortened while "
                "the array was on its way to another process"
            )
        memory = MappedFile(descriptor, 0, found.st_size, private=not writable).memory
    finally:
        os.close(descriptor)
    _mappings[key] = memory
    return memory
