# SPDX-License-Identifier: BSD-3-Clause
"""Inputs that lend their items: what they gave is good only until the next one is taken.

::

    itertools.groupby        the group is empty then
    a reader's one buffer    the same list, array or image again, with other contents
    with open(...): yield    the file is closed then

One item at a time, as the caller runs them, that is no matter. A call that pulls ahead looks at the
first items, before and after the next is taken: groups become lists, what can be pickled is copied
from then on, and anything else is refused.
"""

from __future__ import annotations

import itertools
import pickle
import zlib
from collections import deque
from collections.abc import Iterable
from typing import Any

from teamster.errors import UsageError

_VIEWS: tuple[type, ...] = type({}.keys()), type({}.values()), type({}.items())
_CONTAINERS: tuple[type, ...] = (
    list,
    tuple,
    range,
    str,
    bytes,
    dict,
    set,
    frozenset,
    deque,
    *_VIEWS,
)
_CONSTANTS = (int, float, complex, bool, str, bytes, type(None))
_GROUP = type(next(itertools.groupby("a"))[1])
_COPY_BYTES = 1 << 20  # what is larger is not copied for a look
_SAMPLE_BYTES = 1 << 16  # of a buffer: enough to see that it was filled anew


def keeps_its_items(iterable: Iterable[Any]) -> bool:
    """Whether an input is a container, which goes on holding what it gave.

    Example:
        >>> keeps_its_items([1, 2]), keeps_its_items(iter([1, 2]))
        (True, False)
    """
    return isinstance(iterable, _CONTAINERS) or hasattr(type(iterable), "__array__")


class Loan:
    """One item, looked at before the next one is taken.

    Attributes:
        matters: whether there is anything about it that could change.

    Example:
        >>> row = [1]
        >>> loan = Loan(row)
        >>> row[0] = 2
        >>> loan.change(), loan.copy()
        ('changes what it gave (list)', [1])
    """

    def __init__(self, item: Any) -> None:
        self._item = item
        parts = item if type(item) is tuple else (item,)
        self._parts = [(part, _look(part)) for part in parts if type(part) not in _CONSTANTS]
        self._data = _dump(item) if self._parts else None
        self.matters = bool(self._parts)

    def change(self) -> str:
        """What has become of it; empty when it is as it was."""
        for part, before in self._parts:
            kind = type(part).__name__
            closed, sample = _look(part)
            if closed and not before[0]:
                return f"closes what it gave ({kind})"
            if sample != before[1]:
                return f"changes what it gave ({kind})"
        if self._data is not None and _dump(self._item) != self._data:
            return f"changes what it gave ({type(self._parts[0][0]).__name__})"
        return ""

    @property
    def has_copy(self) -> bool:
        """Whether there is a copy of the item as it was."""
        return self._data is not None

    def copy(self) -> Any:
        """That copy."""
        return pickle.loads(self._data or b"")


def has_groups(item: Any) -> bool:
    """Whether an item is, or holds, a group of `itertools.groupby`."""
    return type(item) is _GROUP or (
        type(item) is tuple and any(type(part) is _GROUP for part in item)
    )


def with_lists(item: Any) -> Any:
    """The item with iterators of lists in place of groups."""
    if type(item) is _GROUP:
        return iter(list(item))
    return tuple(iter(list(part)) if type(part) is _GROUP else part for part in item)


def own_copy(item: Any) -> Any:
    """A copy that its input cannot change any more."""
    return pickle.loads(pickle.dumps(item, 5))


def refusal(why: str) -> UsageError:
    """The error for an input with items that cannot be run side by side."""
    return UsageError(
        f"this input {why} when the next item is taken, so items cannot be run side by side; they "
        "do not pickle or are too large to copy; have it give each item as an object of its own, "
        "as the path in place of the file, or use backend='serial'"
    )


def _look(part: Any) -> tuple[bool, int]:
    """Whether it is closed, and a checksum of the start of its memory, where it has any to show."""
    try:
        closed = getattr(part, "closed", False) is True
    except Exception:
        closed = False
    try:
        with memoryview(part) as view:
            flat = view.cast("B") if view.c_contiguous else memoryview(b"")
            return closed, zlib.crc32(flat[:_SAMPLE_BYTES])
    except (TypeError, ValueError, BufferError):
        return closed, 0


def _dump(item: Any) -> bytes | None:
    nbytes = getattr(item, "nbytes", 0)
    if has_groups(item) or (isinstance(nbytes, int) and nbytes > _COPY_BYTES):
        return None
    try:
        return pickle.dumps(item, 5)
    except Exception:
        return None
