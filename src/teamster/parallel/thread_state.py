# SPDX-License-Identifier: BSD-3-Clause
"""What of the caller's state a device's thread takes over: all that is kept for each thread."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.compiler import is_compiling
from torch.fx import _symbolic_trace

Result = TypeVar("Result")

_AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")


class ThreadState:
    """The calling thread's state, for another thread.

    It is grad mode, inference mode, autocast, default device, hooks on saved tensors, context
    variables and streams.

    Args:
        device: where the thread that takes it over works.

    Example:
        >>> import threading
        >>> with torch.no_grad():
        ...     carried = ThreadState(torch.device("cpu"))
        >>> seen = []
        >>> def look():
        ...     seen.append(torch.is_grad_enabled())
        >>> thread = threading.Thread(target=carried.run, args=(look,))
        >>> thread.start(); thread.join(); seen
        [False]
    """

    __slots__ = (
        "_autocast",
        "_cache",
        "_context",
        "_default",
        "_device",
        "_grad",
        "_hooks",
        "_inference",
        "_stream",
    )

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._grad = torch.is_grad_enabled()
        self._inference = torch.is_inference_mode_enabled()
        kinds = [
            kind
            for kind in _AUTOCAST_DEVICES
            if kind in ("cpu", device.type) and torch.is_autocast_enabled(kind)
        ]
        self._autocast = [(kind, torch.get_autocast_dtype(kind)) for kind in kinds]
        self._cache = torch.is_autocast_cache_enabled()
        self._default = torch.get_default_device()
        self._hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._context = contextvars.copy_context()

    def run(self, function: Callable[[], Result]) -> Result:
        """ModuleCall `function` in that state.

        Args:
            function: what to call.

        Returns:
            Its result.
        """
        return self._context.copy().run(self._run, function)

    def _run(self, function: Callable[[], Result]) -> Result:
        with self._state():
            return function()

    @contextmanager
    def _state(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self._inference:
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(self._grad))
            for kind, dtype in self._autocast:
                stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=self._cache))
            if torch.get_default_device() != self._default:
                stack.enter_context(self._default)
            if self._hooks is not None:
                stack.enter_context(saved_tensors_hooks(*self._hooks))
            if self._stream is not None:
                stack.enter_context(torch.cuda.device(self._device))
                stack.enter_context(torch.cuda.stream(self._stream))
            yield


def is_hooked() -> bool:
    """Whether hooks on saved tensors are active.

    They expect one thread, and tensors in the order of the plain module.

    Returns:
        True inside of ``saved_tensors_hooks``, ``save_on_cpu`` and ``checkpoint``.

    Example:
        >>> is_hooked()
        False
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work.

    Both keep to one thread and one graph.

    Returns:
        True inside of ``torch.func.grad``, ``vmap``, ``jvp`` and
        ``torch.autograd.forward_ad.dual_level``.

    Example:
        >>> is_transformed()
        False
    """
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def is_traced() -> bool:
    """Whether a call is recorded and not run.

    Recorders follow one thread: torch.jit.trace, torch.export, torch.compile and torch.fx.

    Returns:
        True while they look.

    Example:
        >>> is_traced()
        False
    """
    return bool(
        is_compiling()
        or _symbolic_trace._is_fx_tracing_flag
        or torch._C._get_tracing_state() is not None
    )


def carry_all(devices: list[torch.device]) -> list[Any]:
    """The caller's state for each of several devices.

    Args:
        devices: where threads work.

    Returns:
        One `ThreadState` a device; replicas on one device share it.

    Example:
        >>> first, second = carry_all([torch.device("cpu")] * 2)
        >>> first is second
        True
    """
    made: dict[torch.device, ThreadState] = {}
    return [
        made.setdefault(device, ThreadState(device)) if device not in made else made[device]
        for device in devices
    ]
