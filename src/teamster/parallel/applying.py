# SPDX-License-Identifier: BSD-3-Clause
"""Step 3: all replicas at once, each in its device's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns, thread_time_ns
from typing import Any

import torch
from torch import nn

from teamster import lifetime
from teamster.errors import UsageError
from teamster.machine.cpus import usable_cores
from teamster.parallel.thread_state import carry_all, is_hooked
from teamster.parallel.threads import DeviceThreads
from teamster.tensors.devices import DeviceLike, as_device
from teamster.tensors.nest import tensors_of

NotePhase = Callable[[str, int, int, int], None]
"""Takes a phase, the replica (-1: the caller), when it began and its processor time (ns)."""

_shared: dict[tuple[torch.device, ...], DeviceThreads] = {}
_lock = threading.Lock()


def _forget() -> None:
    """In a forked copy of the program no thread holds it."""
    global _lock
    _lock = threading.Lock()


def inner_threads(devices: Sequence[torch.device]) -> int | None:
    """Threads of OpenMP and BLAS for each replica: the cores shared out on CPUs, else None."""
    return max(1, usable_cores() // len(devices)) if devices[0].type == "cpu" else None


def shared_threads(devices: Sequence[torch.device]) -> DeviceThreads:
    """Threads that `parallel_apply` keeps between calls."""
    lifetime.in_forked_copy(_forget)
    key = tuple(devices)
    with _lock:
        if key not in _shared:
            _shared[key] = DeviceThreads(devices, inner_threads(devices), "teamster-shared-")
        return _shared[key]


def apply_all(
    replicas: Sequence[Callable[..., Any]],
    inputs: Sequence[tuple[Any, ...]],
    kwargs: Sequence[dict[str, Any]],
    devices: list[torch.device],
    threads: DeviceThreads,
    note_phase: NotePhase = lambda phase, replica, began, cpu: None,
    *,
    in_turn: bool = False,
) -> list[Any]:
    """Call replica i with its arguments in thread i, with the caller's state."""
    jobs = [
        partial(
            carried.run,
            partial(_call, replica, given, named, partial(note_phase, "forward", index)),
        )
        for index, (replica, given, named, carried) in enumerate(
            zip(replicas, inputs, kwargs, carry_all(devices), strict=True)
        )
    ]
    return threads.run(jobs, in_turn=in_turn)


def _call(
    replica: Callable[..., Any],
    given: tuple[Any, ...],
    named: dict[str, Any],
    note_phase: Callable[[int, int], None],
) -> Any:
    began, cpu_began = perf_counter_ns(), thread_time_ns()
    try:
        return replica(*given, **named)
    finally:
        note_phase(began, thread_time_ns() - cpu_began)


def parallel_apply(
    modules: Sequence[nn.Module],
    inputs: Sequence[Any],
    kwargs_tup: Sequence[dict[str, Any]] | None = None,
    devices: Sequence[DeviceLike | None] | None = None,
) -> list[Any]:
    """Call each module with its inputs, all at once.

    The threads are kept for the next call. They take over the caller's grad mode, inference mode,
    autocast, default device, context variables, hooks on saved tensors, and CUDA streams.

    Args:
        modules: one a device.
        inputs: for each module a tuple of positional arguments, or a single one.
        kwargs_tup: for each module its keyword arguments.
        devices: where they are; None looks at the inputs.

    Returns:
        The outputs, in order, when all are done.

    Raises:
        UsageError: the numbers differ.
        Exception: what the first module that failed raised, as its own type, with a note "in
            replica 1 on device cpu".

    Example:
        >>> double = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(double.weight, 2.0)
        >>> outputs = parallel_apply([double, double], [torch.ones(1), torch.zeros(1)])
        >>> [output.item() for output in outputs]
        [2.0, 0.0]
    """
    return apply_checked(modules, inputs, kwargs_tup, devices, shared_threads)


def apply_checked(
    modules: Sequence[Callable[..., Any]],
    inputs: Sequence[Any],
    kwargs_tup: Sequence[dict[str, Any]] | None,
    devices: Sequence[DeviceLike | None] | None,
    threads: Callable[[list[torch.device]], DeviceThreads],
    note_phase: NotePhase = lambda phase, replica, began, cpu: None,
) -> list[Any]:
    """The same in given threads."""
    named = list(kwargs_tup) if kwargs_tup is not None else [{} for _ in modules]
    places = list(devices) if devices is not None else [None] * len(modules)
    for what, count in (
        ("inputs", len(inputs)),
        ("kwargs_tup", len(named)),
        ("devices", len(places)),
    ):
        if count != len(modules):
            raise UsageError(
                f"parallel_apply has {len(modules)} modules and {count} {what}; there must be one "
                "each"
            )
    if not modules:
        return []
    given = [tuple(each) if isinstance(each, (tuple, list)) else (each,) for each in inputs]
    found = [
        as_device(place) if place is not None else _device_of(each, own)
        for place, each, own in zip(places, given, named, strict=True)
    ]
    return apply_all(modules, given, named, found, threads(found), note_phase, in_turn=is_hooked())


def _device_of(inputs: Any, kwargs: dict[str, Any]) -> torch.device:
    tensors = tensors_of((inputs, kwargs))
    return as_device(tensors[0].device) if tensors else torch.device("cpu")
