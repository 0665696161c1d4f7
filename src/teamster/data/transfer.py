# SPDX-License-Identifier: BSD-3-Clause
"""Batches on a device: their copies go beside what that computes.

::

    batch --pinned (a slot is already)--> copied in a stream of its own --> event
                                              |                               |
      kept here until that is over <----------+      the consumer's stream waits for it

The consumer's thread goes on at once. So where a step is bound by the device, the copy of a batch
costs nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, Protocol

import torch
from torch.utils.data._utils.pin_memory import pin_memory

from teamster.data.loader_report import LoaderClock
from teamster.spine.trace import spans
from teamster.spine.trace.ring import TRANSFER
from teamster.tensors.devices import DeviceLike, as_device
from teamster.tensors.nest import parts_of, remake, tensors_of

_STREAMED = ("cuda", "xpu")  # kinds of devices whose copies can go beside other work
_UNDER_WAY = 2  # batches whose copies need not be over: more would hold all slots


class SideStream(Protocol):
    """Where copies go beside other work."""

    def copying(self) -> contextlib.AbstractContextManager[Any]:
        """In here copies are put into it."""

    def finish(self) -> Any:
        """Have what the device computes from now on wait for them; gives their event."""

    def hold(self, tensor: torch.Tensor) -> None:
        """Memory of this tensor is not used again before the device is done with it."""


class _Stream:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.Stream(device)

    def copying(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self._stream
        return context

    def finish(self) -> Any:
        event = self._stream.record_event()
        torch.accelerator.current_stream(self._device).wait_event(event)
        return event

    def hold(self, tensor: torch.Tensor) -> None:
        tensor.record_stream(torch.accelerator.current_stream(self._device))


class Transfer:
    """Gives batches on a device.

    Args:
        device: where they are wanted.
        stream: for the copies; by default one of the device, where it has such.

    Raises:
        UsageError: there is no such device.

    Example:
        >>> Transfer("cpu")({"x": [torch.ones(2)], "name": "a"})
        {'x': [tensor([1., 1.])], 'name': 'a'}
    """

    def __init__(self, device: DeviceLike, stream: SideStream | None = None) -> None:
        self._device = as_named(device)
        if stream is None and self._device.type in _STREAMED:
            stream = _Stream(self._device)
        self._stream = stream
        self._under_way: deque[tuple[Any, Any]] = deque()  # events, and what is copied until then

    def __call__(self, batch: Any) -> Any:
        """The batch there; it may be used like any other at once."""
        stream = self._stream
        # What an object does in its `to` cannot be seen, nor be held
        if stream is None or _has_foreign(batch):
            return _moved(batch, self._device)
        self._let_go()
        host = pin_memory(batch) if self._device.type in _STREAMED else batch
        with stream.copying():
            batch = _moved(host, self._device)
        self._under_way.append((stream.finish(), host))
        for tensor in tensors_of(batch):
            stream.hold(tensor)
        return batch

    def finish(self) -> None:
        """Wait for copies that are under way, before their memory is used for something else."""
        while self._under_way:
            self._under_way.popleft()[0].synchronize()

    def _let_go(self) -> None:
        """Of batches whose copies are over; there are never many that are not."""
        while self._under_way:
            event, _ = self._under_way[0]
            if len(self._under_way) >= _UNDER_WAY:
                event.synchronize()
            elif not event.query():
                return
            self._under_way.popleft()


def pinning(wanted: bool, device: str | None) -> Callable[[Any], Any] | None:
    """What copies a batch to pinned memory; None where that is not wanted.

    Args:
        wanted: whether it is.
        device: whose memory that is; None for the usual one.

    Example:
        >>> pinning(False, None) is None
        True
    """
    return partial(pin_memory, device=device) if wanted else None


def moved(batch: Any, move: Callable[[Any], Any], clock: LoaderClock, number: int) -> Any:
    """A batch in pinned memory, or on a device; a report and a timeline show what that takes.

    Args:
        batch: that was made.
        move: to where it is wanted.
        clock: of the loader.
        number: of the batch, in its epoch.

    Example:
        >>> moved([1], list, LoaderClock(), 0)
        [1]
    """
    began = perf_counter_ns()
    batch = move(batch)
    clock.moved((perf_counter_ns() - began) / 1e9)
    spans.note(spans.current_ring(), TRANSFER, "move a batch", began, number)
    return batch


def _moved(value: Any, device: torch.device) -> Any:
    """The same containers on a device; objects that have `to` are asked for it."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    parts = parts_of(value)
    if parts is not None:
        return remake(value, [_moved(part, device) for part in parts]) if parts else value
    return value.to(device) if callable(getattr(value, "to", None)) else value


def _has_foreign(value: Any) -> bool:
    """Whether there are objects inside that move by themselves."""
    if isinstance(value, torch.Tensor):
        return False
    parts = parts_of(value)
    if parts is not None:
        return any(map(_has_foreign, parts))
    return callable(getattr(value, "to", None))


def as_named(device: DeviceLike) -> torch.device:
    """The device of a name; "cuda" is the one that this program has set.

    Raises:
        UsageError: there is no such device.

    Example:
        >>> as_named("cpu")
        device(type='cpu')
    """
    if device in ("cuda", torch.device("cuda")) and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return as_device(device)


def transfer_of(loader: Any) -> Transfer | None:
    """What gives the batches of a loader on its device; None where they stay as they are.

    Args:
        loader: with `device`.
    """
    return None if loader.device is None else Transfer(loader.device)


def pin(mapped: Any) -> None:
    """Have memory that is mapped anyway pinned, as long as it is; a copy from it needs no other.

    Args:
        mapped: a `MappedFile`; where it cannot be pinned, it stays as it is.
    """
    if not torch.cuda.is_available():
        return
    with contextlib.suppress(AttributeError, RuntimeError):  # a build without it, no memory
        runtime = torch.cuda.cudart()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped.memory))
        if int(runtime.cudaHostRegister(address, len(mapped.memory), 0)) == 0:
            # Of the object around it: its own memory is unmapped before its references are told
            weakref.finalize(mapped, runtime.cudaHostUnregister, address).atexit = False


def can_pin(loader: Any) -> bool:
    """Whether batches of a loader are to be in pinned memory of CUDA's.

    Args:
        loader: with `pin_memory` and `device`.
    """
    on_device = loader.device is not None and loader.device.type == "cuda"
    wanted = loader.pin_memory or on_device
    return bool(wanted and torch.cuda.is_available())
