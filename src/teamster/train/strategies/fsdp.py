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

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from teamster.errors import UsageError
from teamster.train.strategies.launched import Launched
from teamster.train.strategies.strategy import Losses, Work, device_of
from teamster.train.strategies.world import World
from teamster.train.validation import check_optimizers

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
        _check(module, optimizers)
        super().__init__(module, world)
        names = {id(each): name for name, each in module.named_parameters()}
        shard(module, world.size)
        shards = dict(module.named_parameters())
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = [shards[names[id(each)]] for each in group["params"]]

    def run(self, work: Work) -> Losses:
        """As every strategy; every rank calls it."""
        self.world.enter(work.number, "forward and backward")
        self.share_buffers()
        own = self.own(work) or _borrowed(work)
        counts, rows = self._of_all_ranks(own.count(), own.rows())
        self.rows_of_batch, whole = sum(rows), sum(counts) or 1.0
        try:
            with self.world.together():
                losses = self._run_own(own, counts[self.world.rank] / whole)
        except Exception as error:
            cause = self.world.cause_of(error)
            raise cause from (error.__cause__ if cause is error else error)
        named = torch.tensor([list(losses) != [None]], dtype=torch.uint8, device=self._device)
        self.world.most(named)
        return self._sum_losses(losses, all_alike=not named.item())


def _borrowed(work: Work) -> Work:
    """A row of a batch of which this rank has none."""
    rows = work.samples()
    first: Work = work.cut([1, rows - 1])[0]
    return replace(first, is_borrowed=True)


def _check(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    if any(hasattr(each, "full_tensor") for each in module.parameters()):
        raise UsageError(
            "the model is sharded already: give the trainer the plain one, and it shards it"
        )
    check_optimizers(module, optimizers, "fsdp")
    if any(each.state for each in optimizers):
        raise UsageError(
            "strategy 'fsdp' replaces the parameters by shards, and the optimizer has a state of "
            "the whole ones: make the trainer before the optimizer's first step, or load a "
            "checkpoint with resume= or trainer.load"
        )
    scalar = next((name for name, each in module.named_parameters() if not each.ndim), None)
    if scalar is not None:
        raise UsageError(
            f"strategy 'fsdp' shards parameters by their first dimension, and {scalar} has none: "
            "give it the shape (1,), or take 'ddp'"
        )
    for name, each in module.named_modules():
        if getattr(each, "sparse", False):
            raise UsageError(
                f"strategy 'fsdp' has no sparse gradients, and {name or 'the model'} has: leave "
                "sparse=True out, or take 'ddp'"
            )


def shard(module: nn.Module, ranks: int) -> None:
    """Have each rank keep a part of each parameter.

    Args:
        module: the same in all ranks.
        ranks: of the default process group, all of them.
    """
    mesh = init_device_mesh(device_of(module).type, (ranks,))
    for each in (*units_of(module), module):
        fully_shard(each, mesh=mesh)
        # Losses are weighted before: what ranks have adds up to the gradient of the whole batch
        each.set_gradient_divide_factor(1.0)
        each.set_force_sum_reduction_for_comms(True)  # gloo has no sum that multiplies
        each.set_reduce_scatter_unused_params(True)  # other ranks' rows may have used them


def units_of(module: nn.Module) -> list[nn.Module]:
    """What is gathered at a time: layers of lists and sequences, where they are large enough.

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
            is_layer = isinstance(parent, (nn.ModuleList, nn.Sequential))
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
