# SPDX-License-Identifier: BSD-3-Clause
"""Batches in shared memory that is used again: processes write samples into their rows.

::

    consumer: Slots.take() --> a free slot     worker: write(samples, place) --> rows of the slot
        |                                                                          |
        +--> views: the tensors of the batch, when all rows are there <------------+
             the last view dies --> the slot is free again

What is large in a batch goes this way: one copy, out of the sample, into pages that are there
already. The rest of it (labels, names) is collated in the worker and travels by pickle, with a 0 in
the place of what is in the slot. A sample of another shape or type than the batches before goes the
ordinary way with all that was read beside it; so does a batch for which no slot is free, since the
consumer keeps those that it got.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from teamster.data.transfer import pin
from teamster.machine.descriptors import Descriptor, Identity, identity_of, is_still
from teamster.spine.transport.arena import ArenaFull, make_file
from teamster.spine.transport.mapping import PAGE_BYTES, MappedFile

_LARGE_BYTES = 64 * 1024  # of a tensor of a batch: smaller ones travel by pickle as fast
_ALIGNED_BYTES = 64  # where a tensor of a slot begins: a line of the cache


class Leaf(NamedTuple):
    """A tensor of a batch that is in the slot.

    Attributes:
        path: keys and indices that lead to it, in a sample and in a batch.
        dtype: of its numbers.
        shape: of a row.
        offset: of its first row in the slot, in bytes.
    """

    path: tuple[Any, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def view(self, memory: Any, first: int, rows: int) -> torch.Tensor:
        """Rows of it, as a tensor that keeps `memory` alive."""
        numbers = rows * math.prod(self.shape)
        offset = self.offset + first * self.row_bytes
        flat = torch.frombuffer(memory, dtype=self.dtype, count=numbers, offset=offset)
        return flat.view(rows, *self.shape)


@dataclass(frozen=True, slots=True)
class SlotRows:
    """Where rows of a batch go.

    Attributes:
        file: pid of the program, its descriptor, and what is behind that (device, inode).
        start: of the slot in the file, in bytes.
        nbytes: of a slot.
        first: row.
        leaves: what goes there.
    """

    file: tuple[int, int, Identity]
    start: int
    nbytes: int
    first: int
    leaves: tuple[Leaf, ...]

    def at(self, row: int) -> SlotRows:
        """The same, from a later row on."""
        return SlotRows(self.file, self.start, self.nbytes, self.first + row, self.leaves)


class Lease:
    """A slot in use, until it and all tensors of its batch are gone.

    Args:
        memory: of the slot.
        place: where workers write its first row.

    Example:
        >>> lease = Slots.like(torch.zeros(4, 8192), 4, 2).take()
        >>> write([torch.ones(8192)] * 4, lease.place)
        [0, 0, 0, 0]
        >>> lease.batch(torch.zeros(4), 0, 4).sum().item()
        32768.0
    """

    __slots__ = ("memory", "place")

    def __init__(self, memory: Any, place: SlotRows) -> None:
        self.memory = memory
        self.place = place

    def batch(self, rest: Any, first: int, rows: int) -> Any:
        """What is in some rows, put into the rest of their batch."""
        for leaf in self.place.leaves:
            rest = replaced(rest, leaf.path, leaf.view(self.memory, first, rows))
        return rest


class Slots:
    """The slots of one feed.

    Args:
        leaves: what goes into one.
        nbytes: of all of them.
        rows: of a batch, at most.
        count: of slots, at most.
        pinned: whether their memory is pinned, for copies to a device of CUDA's.

    Example:
        >>> Slots.like(torch.zeros(4), 4, 2) is None
        True
        >>> slots = Slots.like(torch.zeros(4, 8192), 4, 1)
        >>> lease = slots.take()
        >>> slots.take() is None
        True
        >>> del lease
        >>> slots.take() is None
        False
    """

    def __init__(
        self, leaves: tuple[Leaf, ...], nbytes: int, rows: int, count: int, *, pinned: bool = False
    ) -> None:
        self.rows = rows
        self._pinned = pinned
        self._leaves = leaves
        self._nbytes = -(-nbytes // PAGE_BYTES) * PAGE_BYTES
        self._file = Descriptor(make_file())
        self._name = os.getpid(), self._file.number, identity_of(self._file.number)
        self._maps: list[MappedFile] = []
        self._free: list[int] = []
        self._count = count

    @classmethod
    def like(cls, batch: Any, rows: int, count: int, *, pinned: bool = False) -> Slots | None:
        """Slots for batches like this one.

        Args:
            batch: as `default_collate` makes it.
            rows: that it has.
            count: of slots, at most.
            pinned: whether their memory is pinned.

        Returns:
            None where nothing in it is large, or there is no shared memory.
        """
        leaves, offset = [], 0
        for path, tensor in tensors_of(batch):
            if _can_be_placed(tensor, rows):
                leaves.append(Leaf(path, tensor.dtype, tuple(tensor.shape[1:]), offset))
                offset += -(-tensor.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
        if leaves:
            with contextlib.suppress(ArenaFull):
                return cls(tuple(leaves), offset, rows, count, pinned=pinned)
        return None

    def take(self) -> Lease | None:
        """A slot that nobody uses; None where there is none."""
        try:
            number = self._free.pop()
        except IndexError:
            if len(self._maps) >= self._count or not self._grow():
                return None
            number = len(self._maps) - 1
        memory = self._maps[number].export(0, self._nbytes)
        weakref.finalize(memory, self._free.append, number).atexit = False
        place = SlotRows(self._name, number * self._nbytes, self._nbytes, 0, self._leaves)
        return Lease(memory, place)

    def _grow(self) -> bool:
        """Have one slot more; its memory is asked for now, and not by a signal in a worker."""
        start = len(self._maps) * self._nbytes
        try:
            if not is_still(self._file.number, self._name[2]):  # the program has closed it
                return False
            os.posix_fallocate(self._file.number, start, self._nbytes)
            mapped = MappedFile(self._file.number, start, self._nbytes)
            if self._pinned:
                pin(mapped)
            self._maps.append(mapped)
        except OSError:
            self._count = len(self._maps)
            return False
        return True


def tensors_of(batch: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The tensors of a batch, with the keys and indices that lead to them.

    Example:
        >>> [path for path, _ in tensors_of({"x": [torch.ones(1), "a"]})]
        [('x', 0)]
    """
    if isinstance(batch, torch.Tensor):
        yield path, batch
    elif type(batch) is dict:
        for key, value in batch.items():
            yield from tensors_of(value, (*path, key))
    elif type(batch) is list or isinstance(batch, tuple):
        for index, value in enumerate(batch):
            yield from tensors_of(value, (*path, index))


def _can_be_placed(tensor: torch.Tensor, rows: int) -> bool:
    return (
        type(tensor) is torch.Tensor
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and tensor.dim() > 0
        and len(tensor) == rows
        and tensor.nbytes >= _LARGE_BYTES
    )


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a sample, or a batch, that has something else at the end of a path.

    Example:
        >>> replaced(({"x": 1}, 2), (0, "x"), 7)
        ({'x': 7}, 2)
    """
    if not path:
        return new
    key, *rest = path
    inner = replaced(value[key], tuple(rest), new)
    if isinstance(value, dict):
        return {**value, key: inner}
    items = [*value[:key], inner, *value[key + 1 :]]
    if type(value) is list:
        return items
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


# --- in a worker ----------------------------------------------------------------------------------

_mapped: dict[int, MappedFile] = {}  # by where a slot starts
_mapped_from: list[tuple[int, int, Identity]] = []  # the file of all of them


def write(samples: Sequence[Any], place: SlotRows) -> list[Any] | None:
    """Write samples into their rows.

    Args:
        samples: of one row each.
        place: of the first.

    Returns:
        The samples with a 0 for what was written; None where they go the ordinary way.
    """
    try:
        found = [_numbers_at(samples, leaf) for leaf in place.leaves]
        memory = _memory(place)
    except (LookupError, TypeError, OSError):
        return None
    for leaf, values in zip(place.leaves, found, strict=True):
        if values is None:
            return None
        rows = leaf.view(memory, place.first, len(values))
        if isinstance(values[0], torch.Tensor):
            torch.stack(values, out=rows)
        else:
            sys.modules["numpy"].stack(values, out=rows.numpy())
    return [_without(sample, place.leaves) for sample in samples]


def _numbers_at(samples: Sequence[Any], leaf: Leaf) -> list[Any] | None:
    """What the samples have for a leaf; None where it does not fit there."""
    values = []
    for sample in samples:
        value = sample
        for key in leaf.path:
            value = value[key]
        values.append(value)
    return values if _fit(values, leaf) else None


def _fit(values: list[Any], leaf: Leaf) -> bool:
    kind, numpy = type(values[0]), sys.modules.get("numpy")
    if kind is not torch.Tensor and (numpy is None or kind is not numpy.ndarray):
        return False
    if any(type(value) is not kind or tuple(value.shape) != leaf.shape for value in values):
        return False
    if kind is torch.Tensor:
        return all(
            value.dtype == leaf.dtype
            and value.device.type == "cpu"
            and value.layout is torch.strided
            and not value.requires_grad
            for value in values
        )
    wanted = torch.empty(0, dtype=leaf.dtype).numpy().dtype
    return all(value.dtype == wanted for value in values)


def _without(sample: Any, leaves: tuple[Leaf, ...]) -> Any:
    for leaf in leaves:
        sample = replaced(sample, leaf.path, 0)
    return sample


def _memory(place: SlotRows) -> Any:
    """The memory of a slot, mapped once.

    Raises:
        OSError: it cannot be had.
    """
    if _mapped_from != [place.file]:
        _mapped.clear()
        _mapped_from[:] = [place.file]
    if place.start not in _mapped:
        pid, number, identity = place.file
        descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
        try:
            if identity_of(descriptor) != identity:
                raise OSError("the program has another file under this number by now")
            _mapped[place.start] = MappedFile(descriptor, place.start, place.nbytes)
        finally:
            os.close(descriptor)
    return _mapped[place.start].memory
