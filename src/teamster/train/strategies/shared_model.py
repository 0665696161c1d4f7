# SPDX-License-Identifier: BSD-3-Clause
"""A module in memory that all ranks of a machine have in common.

::

    one file:  parameters | buffers, as the program published them | gradients of rank 1 | 2 | ...
                   |              |                                       |
    program:   its own, here   copied to before a step                added to its own after a step
    rank n:    the same bytes  copied from before a step              written as they are computed

So the optimizer of the program changes what every rank computes with, and no parameter travels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from teamster.spine.transport.shared_file import SharedFile

_ALIGNED_BYTES = 64  # where a tensor begins: a line of the cache


class Survey(NamedTuple):
    """What a module holds, in the order of torch's own walks, each once.

    Attributes:
        modules: itself, and those in it.
        parameters: of all of them.
        buffers: of all of them.

    Example:
        >>> survey = Survey.of(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)))
        >>> [len(each) for each in survey]
        [3, 4, 3]
    """

    modules: list[nn.Module]
    parameters: list[torch.Tensor]
    buffers: list[torch.Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> Survey:
        """One walk; torch's three take several times as long, in each step."""
        modules = list(module.modules())
        parameters: dict[int, torch.Tensor] = {}
        buffers: dict[int, torch.Tensor] = {}
        for each in modules:
            for found, held in ((parameters, each._parameters), (buffers, each._buffers)):
                for tensor in held.values():
                    if tensor is not None:
                        found[id(tensor)] = tensor
        return cls(modules, list(parameters.values()), list(buffers.values()))


class TensorPlace(NamedTuple):
    """Where a tensor is.

    Attributes:
        offset: in its area, in bytes.
        dtype: of its numbers.
        shape: of it.
        strides: of it, in numbers.
    """

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes from its first number to its last."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        numbers = 1 + sum((count - 1) * stride for count, stride in steps)
        return numbers * int(self.dtype.itemsize)

    def view(self, memory: Any, area: int) -> torch.Tensor:
        """The tensor, in an area that begins at a byte of the memory."""
        if not self.nbytes:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(
            memory,
            dtype=self.dtype,
            count=self.nbytes // self.dtype.itemsize,
            offset=area + self.offset,
        )
        return flat.as_strided(self.shape, self.strides)


def lay_out(tensors: Iterable[torch.Tensor]) -> tuple[list[TensorPlace], int]:
    """Places for tensors one behind the other, and the bytes that they take together.

    Example:
        >>> places, nbytes = lay_out([torch.zeros(3), torch.zeros(2, 2)])
        >>> [place.offset for place in places], nbytes
        ([0, 64], 128)
    """
    places, offset = [], 0
    for tensor in tensors:
        # The order in memory stays (channels last), gaps and overlaps do not
        strides = torch.empty_like(tensor, device="meta").stride()
        places.append(TensorPlace(offset, tensor.dtype, tuple(tensor.shape), tuple(strides)))
        offset += -(-places[-1].nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
    return places, offset


class SharedModel:
    """The tensors of a module; made by the program, and sent to the ranks beside the module.

    Args:
        module: on the CPU; its parameters are moved into shared memory.
        ranks: how many, the program included.

    Raises:
        ArenaFull: there is no room.

    Example:
        >>> module = nn.Linear(2, 1)
        >>> shared = SharedModel(module, 2)
        >>> shared.gradients(1)[0].shape
        torch.Size([1, 2])
    """

    def __init__(self, module: nn.Module, ranks: int) -> None:
        parameters, buffers = list(module.parameters()), list(module.buffers())
        self._parameters, nbytes = lay_out(parameters)
        self._buffers, of_buffers = lay_out(buffers)
        self._areas = 0, nbytes, nbytes + of_buffers
        self._nbytes = nbytes
        self._file = SharedFile(nbytes * ranks + of_buffers)
        self._made: dict[int, list[torch.Tensor]] = {}  # views, by where their area begins
        with torch.no_grad():
            for tensor, view in zip(parameters, self._views(self._parameters, 0), strict=True):
                view.copy_(tensor)
                tensor.data = view
        self._signature = [(each.data_ptr(), each.dtype) for each in parameters]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": {}, "_signature": []}

    def _views(self, places: Sequence[TensorPlace], area: int) -> list[torch.Tensor]:
        """Made once: to make one takes as long as to add a small gradient."""
        if area not in self._made:
            self._made[area] = [place.view(self._file.memory, area) for place in places]
        return self._made[area]

    def fits(self, survey: Survey) -> bool:
        """Whether a module is still here: `to()` may have moved it, a mask may have grown."""
        places = [(each.data_ptr(), each.dtype) for each in survey.parameters]
        return (
            places == self._signature
            and len(survey.buffers) == len(self._buffers)
            and all(
                each.shape == place.shape and each.dtype == place.dtype
                for each, place in zip(survey.buffers, self._buffers, strict=True)
            )
        )

    def attach(self, module: nn.Module) -> None:
        """Give a rank's copy of the module the shared parameters."""
        views = self._views(self._parameters, 0)
        for tensor, view in zip(module.parameters(), views, strict=True):
            tensor.data = view

    def published(self) -> list[torch.Tensor]:
        """The buffers as ranks find them."""
        return self._views(self._buffers, self._areas[1]) if self._buffers else []

    def gradients(self, rank: int) -> list[torch.Tensor]:
        """Where a rank other than 0 writes its gradients, one for each parameter."""
        return self._views(self._parameters, self._areas[2] + (rank - 1) * self._nbytes)


class Gradients:
    """Writes the gradients of a rank as soon as the backward pass has them.

    Args:
        module: of the rank.
        views: where to.

    Attributes:
        seen: which parameters had one.
        sparse: those that are sparse, by parameter.

    Example:
        >>> module = nn.Linear(2, 1)
        >>> views = [torch.zeros(1, 2), torch.zeros(1)]
        >>> gradients = Gradients(module, views)
        >>> module(torch.ones(3, 2)).sum().backward()
        >>> views[0].tolist(), sorted(gradients.seen), module.weight.grad
        ([[3.0, 3.0]], [0, 1], None)
    """

    def __init__(self, module: nn.Module, views: Sequence[torch.Tensor]) -> None:
        self._views = views
        self._hooks: dict[int, Any] = {}
        self.seen: set[int] = set()
        self.sparse: dict[int, torch.Tensor] = {}
        self.watch(module)

    def watch(self, module: nn.Module) -> None:
        """See to the parameters that want gradients now."""
        for index, parameter in enumerate(module.parameters()):
            if parameter.requires_grad and index not in self._hooks:
                self._hooks[index] = parameter.register_post_accumulate_grad_hook(
                    partial(self._take, index)
                )

    def close(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks.values():
            hook.remove()

    def begin(self) -> None:
        """A step begins."""
        self.seen, self.sparse = set(), {}

    def _take(self, index: int, parameter: torch.Tensor) -> None:
        grad, parameter.grad = parameter.grad, None
        assert grad is not None
        if grad.layout is not torch.strided:
            before = self.sparse.get(index)
            self.sparse[index] = grad if before is None else before + grad
        elif index in self.seen:  # a second backward pass inside of the first: a checkpoint
            self._views[index].add_(grad)
        else:
            self._views[index].copy_(grad)
            self.seen.add(index)


def copy_all(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """The numbers of some tensors into others.

    Example:
        >>> target = torch.zeros(2)
        >>> copy_all([target], [torch.ones(2)])
        >>> target
        tensor([1., 1.])
    """
    if targets:
        with torch.no_grad():
            torch._foreach_copy_(list(targets), list(sources))


def add_gradients(
    parameters: Sequence[torch.Tensor],
    views: Sequence[torch.Tensor],
    seen: Iterable[int],
    sparse: dict[int, torch.Tensor],
) -> None:
    """Add what a rank has found to the gradients of the program.

    Args:
        parameters: of the program.
        views: the rank's gradients.
        seen: which of them count.
        sparse: the sparse ones.
    """
    ours: list[torch.Tensor] = []
    theirs: list[torch.Tensor] = []
    for index in seen:
        grad = parameters[index].grad
        if grad is None:
            parameters[index].grad = views[index].clone()
        elif grad.layout is torch.strided:
            ours.append(grad)
            theirs.append(views[index])
        else:
            parameters[index].grad = views[index] + grad
    if ours:
        torch._foreach_add_(ours, theirs)
    for index, extra in sparse.items():
        grad = parameters[index].grad
        parameters[index].grad = extra if grad is None else grad + extra
