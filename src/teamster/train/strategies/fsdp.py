# SPDX-License-Identifier: BSD-3-Clause
"""`fsdp`: torchrun has started the ranks, and each keeps its share of the model.

::

    between steps   each rank: a part of each parameter, and the optimizer's state of that part
    forward         all-gather of a unit's parameters, compute, let go        torch's
    backward        all-gather again, compute, reduce-scatter of gradients    fully_shard

Which rows a rank has, and what they count, is as under `ddp`. What is not: within a step the ranks
meet in every unit, so that each has to run the model in each step. One without rows of a batch
borrows one that counts nothing; and one that fails cannot go on with the others, which learn of
it when its connections close.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from teamster.errors import UsageError, annotate
from teamster.train.shards import as_part
from teamster.train.strategies.launched import Launched
from teamster.train.strategies.sharded_uses import Uses
from teamster.train.strategies.strategy import Losses, Work, device_of
from teamster.train.strategies.world import World
from teamster.train.validation import check_optimizers

_LISTS = nn.ModuleList, nn.ModuleDict  # of layers, which have no forward() of their own
_CONTAINERS = (*_LISTS, nn.Sequential)
_PARTS = (
    "under 'fsdp' a rank has a part of the parameters of a large layer (DTensor), but while that "
    "computes: in place of a penalty on them, give the optimizer a weight_decay; or take 'ddp'"
)
_LEAST_PARAMETERS = 1 << 18  # of a unit: to gather fewer takes as long as to say that it is done


class Sharded(Launched):
    """This program's rank, which keeps its share of the model.

    Args:
        module: the user's: its parameters are replaced by shards, under the same names.
        world: the ranks.
        optimizers: of the module; they are given the shards.

    Raises:
        UsageError: the model or an optimizer cannot be sharded.
    """

    name = "fsdp"
    borrows = True

    def __init__(
        self, module: nn.Module, world: World, optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        super().__init__(module, world)
        whole = dict(module.named_parameters())
        self._units = shard(module, world.size)
        shards = {id(whole[name]): part for name, part in module.named_parameters()}
        for optimizer in optimizers:
            _shard_optimizer(optimizer, shards)
        self._uses = Uses(module, self._units[:-1])
        # A loss function may call any method of the model, and use its parameters: all of it counts
        # as the model's forward pass
        module._as_forward = MethodType(self._within_forward, module)
        register_fsdp_forward_method(module, "_as_forward")
        self._call = module._as_forward
        del module._as_forward  # the user's model has no names of ours

    def run(self, work: Work) -> Losses:
        """As every strategy; every rank calls it."""
        self.world.enter(work.number, "forward and backward")
        self.share_buffers()
        own, counts = self._shared_out(work)
        assert own is not None
        self._uses.clear()
        with self.together():
            losses = self._run_own(
                replace(own, loss_fn=self._as_forward(own.loss_fn)), counts[self.world.rank]
            )
        flags = torch.tensor(
            [list(losses) != [None], *self._uses.flags], dtype=torch.uint8, device=self._device
        )
        self.world.most(flags)
        named, *used = flags.tolist()
        self._uses.drop_gradients(used)
        return self._sum_losses(losses, all_alike=not named)

    def own(self, work: Work) -> Work:
        """This rank's slice of a batch, or a row of another's, which counts nothing."""
        own = super().own(work)
        if own is not None:
            return own
        if not work.samples():
            raise UsageError(
                "this rank has no row of the batch, and under 'fsdp' each has to run the model in "
                "each step: leave a row of each batch, and give it no weight (weight=)"
            )
        first: Work = work.cut([1, work.samples() - 1])[0]
        return replace(first, is_borrowed=True)

    def _within_forward(
        self, module: nn.Module, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        self._uses.watch(module)
        return function(module, *args, **kwargs)

    def _as_forward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def within(_: nn.Module, *args: Any, **kwargs: Any) -> Any:
            try:
                found = self._call(function, *args, **kwargs)
            except RuntimeError as error:
                if "DTensor" in str(error):
                    annotate(error, _PARTS)
                raise
            values = found.values() if isinstance(found, dict) else [found]
            if any(hasattr(each, "full_tensor") for each in values):
                raise UsageError(_PARTS)
            return found

        return within

    def evaluating(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See `Launched`: the ranks meet in there."""
        forward = self._as_forward(function)

        def evaluate(module: nn.Module, *batch: Any) -> Any:
            with self.together():
                return forward(module, *batch)

        return evaluate

    def together(self) -> contextlib.AbstractContextManager[None]:
        """See `Launched`."""
        return self.world.together()

    def settle(self) -> None:
        """See `Launched`: after a forward pass without a backward one, parameters are whole."""
        for each in self._units:
            each.reshard()


def _shard_optimizer(optimizer: torch.optim.Optimizer, shards: dict[int, Any]) -> None:
    """Have an optimizer go on with shards: of its state, too, where it has one already."""
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            part = group["params"][index] = shards[id(parameter)]
            state = optimizer.state.pop(parameter, None)
            if state is not None:
                optimizer.state[part] = {
                    name: as_part(value, part) for name, value in state.items()
                }


def check_sharding(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Refuse what cannot be sharded.

    Args:
        module: the user's.
        optimizers: of it.

    Raises:
        UsageError: it is so.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> check_sharding(model, [torch.optim.SGD(model.parameters())])
    """
    if isinstance(module, _LISTS):
        raise UsageError(
            f"strategy 'fsdp' shards what has a forward(), and {type(module).__name__} has none: "
            "put it into a module with one"
        )
    if any(hasattr(each, "full_tensor") for each in module.parameters()):
        raise UsageError(
            "the model is sharded already: give the trainer the plain one, and it shards it"
        )
    check_optimizers(module, optimizers, "fsdp")
    if any(isinstance(each, torch.optim.Adafactor) for each in optimizers):
        raise UsageError(
            "Adafactor keeps means over rows and columns, of which a rank has a part only: take "
            "another optimizer, or strategy 'ddp'"
        )
    for name, each in module.named_parameters():
        _check_parameter(name, each)
    for unit in (*units_of(module), module):
        types = {each.dtype for each in unit.parameters() if each.requires_grad}
        if len(types) > 1:
            raise UsageError(
                "strategy 'fsdp' gathers the parameters of a layer in one piece, and those that "
                f"are trained are of several types ({', '.join(sorted(map(str, types)))}): take "
                "one, or 'ddp'"
            )
    for name, each in module.named_modules():
        if getattr(each, "sparse", False):
            raise UsageError(
                f"strategy 'fsdp' has no sparse gradients, and {name or 'the model'} has: leave "
                "sparse=True out, or take 'ddp'"
            )


def _check_parameter(name: str, parameter: torch.Tensor) -> None:
    if not parameter.ndim:
        raise UsageError(
            f"strategy 'fsdp' shards parameters by their first dimension, and {name} has none: "
            "give it the shape (1,), or take 'ddp'"
        )
    if not parameter.is_contiguous():
        raise UsageError(
            f"strategy 'fsdp' shards rows that are in one piece, and those of {name} are not (is "
            "it channels_last?): model.to(memory_format=torch.contiguous_format), or take 'ddp'"
        )


def shard(module: nn.Module, ranks: int) -> list[Any]:
    """Have each rank keep a part of each parameter.

    Args:
        module: the same in all ranks.
        ranks: of the default process group, all of them.

    Returns:
        What is gathered at a time.
    """
    mesh = init_device_mesh(device_of(module).type, (ranks,))
    units: list[Any] = [*units_of(module), module]
    for each in units:
        fully_shard(each, mesh=mesh)
        # Losses are weighted before: what ranks have adds up to the gradient of the whole batch
        each.set_gradient_divide_factor(1.0)
        each.set_force_sum_reduction_for_comms(True)  # gloo has no sum that multiplies
        each.set_reduce_scatter_unused_params(True)  # other ranks' rows may have used them
    return units


def units_of(module: nn.Module) -> list[nn.Module]:
    """What is gathered at a time: layers of containers, where they are large enough.

    Those that have a parameter in common with another part of the model are no units.

    Args:
        module: any.

    Returns:
        They have no parameter in common, and none is in another.

    Example:
        >>> layers = [nn.Linear(1000, 1000) for _ in range(3)]
        >>> len(units_of(nn.Sequential(*layers, nn.Linear(1, 1))))
        3
        >>> layers[0].weight = layers[1].weight
        >>> len(units_of(nn.Sequential(*layers)))
        1
    """
    uses = _uses_of(module)
    found: list[nn.Module] = []

    def look(parent: nn.Module) -> None:
        for child in parent.children():
            own = _uses_of(child)
            is_layer = isinstance(parent, _CONTAINERS) and not isinstance(child, _LISTS)
            alone = all(uses[each] == count for each, count in own.items())
            size = sum(each.numel() for each in child.parameters())
            if is_layer and alone and size >= _LEAST_PARAMETERS:
                found.append(child)
            else:
                look(child)

    look(module)
    return found


def _uses_of(module: nn.Module) -> Counter[int]:
    """How often each parameter has a name in it."""
    return Counter(id(each) for _, each in module.named_parameters(remove_duplicate=False))
