# SPDX-License-Identifier: BSD-3-Clause
"""CPU tensors as buffers: what travels is what is asked for, as with NumPy arrays.

The storage that it is a view of does not travel. torch's own pickling writes whole storages: a
column of a large matrix would bring the matrix along.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from importlib import import_module
from typing import Any

_PROTOCOL = 5  # the first with buffers beside the pickle (PEP 574)


class Reducers(dict[type, Any]):
    """A dispatch table for a pickler.

    It reduces tensors in our way, everything else as `known` has it at that moment.
    """

    def __init__(self, known: dict[Any, Any]) -> None:
        super().__init__()
        self.known = known

    def __missing__(self, kind: type) -> Any:
        """The reducer for a type; KeyError where there is none."""
        tensor = sys.modules["torch"].Tensor
        if kind is tensor:
            return reduce_tensor
        if issubclass(kind, tensor) and kind.__reduce_ex__ is tensor.__reduce_ex__:
            return _reduce_subclass
        return self.known[kind]


def reducers(known: dict[Any, Any] | None = None) -> dict[Any, Any] | None:
    """A dispatch table of tensors and what is `known` else.

    It is None where plain pickle serves, which knows `copyreg` itself.
    """
    global _reducers
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):
        return known
    if _reducers.known is not (known or copyreg.dispatch_table):
        _reducers = Reducers(known or copyreg.dispatch_table)
    return _reducers


_reducers = Reducers(copyreg.dispatch_table)


def reduce_tensor(tensor: Any) -> Any:
    """Reduce a CPU tensor to a buffer, and any other tensor as torch does."""
    if not _is_dense(tensor) or tensor._backward_hooks:
        return tensor.__reduce_ex__(_PROTOCOL)
    bare, order = tensor.detach(), None
    if tensor.is_conj() or tensor.is_neg():
        bare = bare.resolve_conj().resolve_neg()
    if not bare.is_contiguous():
        order = _order_in_memory(bare)
        bare = bare.permute(order).contiguous()
    torch = sys.modules["torch"]
    flat = (
        bare.reshape(-1).view(torch.uint8) if bare.numel() else bare.new_empty(0, dtype=torch.uint8)
    )
    arguments = (
        pickle.PickleBuffer(flat.numpy()),
        tensor.dtype,
        tuple(bare.shape),
        tensor.requires_grad,
        order,
    )
    if tensor.__dict__:
        return rebuild_tensor, arguments, tensor.__dict__, None, None, set_attributes
    return rebuild_tensor, arguments


def _is_dense(tensor: Any) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.layout is sys.modules["torch"].strided
        and not tensor.is_quantized
        and not tensor.is_nested
    )


def _order_in_memory(tensor: Any) -> tuple[int, ...]:
    """Its dimensions, those with the longest strides first.

    In that order a transposed or channels-last tensor is contiguous, too.
    """
    strides = tensor.stride()
    if 0 in strides:  # expanded: there is no such order
        return tuple(range(tensor.dim()))
    return tuple(sorted(range(tensor.dim()), key=lambda dimension: -strides[dimension]))


def _reduce_subclass(tensor: Any) -> Any:
    """As its class does, from a storage of its own where it shares a larger one."""
    torch = sys.modules["torch"]
    if (
        _is_dense(tensor)
        and tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    ):
        with torch._C.DisableTorchFunctionSubclass():
            own = (
                tensor.detach()
                .clone()
                .as_subclass(type(tensor))
                .requires_grad_(tensor.requires_grad)
            )
        own.__dict__.update(tensor.__dict__)
        tensor = own
    return tensor.__reduce_ex__(_PROTOCOL)


def rebuild_tensor(
    buffer: Any,
    dtype: Any,
    shape: tuple[int, ...],
    requires_grad: bool,
    order: tuple[int, ...] | None,
) -> Any:
    """The tensor back, on top of `buffer` (bytes), which it keeps alive."""
    torch = import_module("torch")  # the sender had it, so this process can load it
    if not len(memoryview(buffer)):
        tensor = torch.empty(shape, dtype=dtype)
    else:
        if memoryview(buffer).readonly:
            buffer = bytearray(buffer)
        tensor = torch.frombuffer(buffer, dtype=torch.uint8).view(dtype).reshape(shape)
    if order is not None:
        tensor = tensor.permute(sorted(range(len(order)), key=order.__getitem__))
    return tensor.requires_grad_(requires_grad)


def set_attributes(tensor: Any, attributes: dict[str, Any]) -> None:
    """Give a tensor the attributes that the program has set on it."""
    tensor.__dict__.update(attributes)
