# SPDX-License-Identifier: BSD-3-Clause
"""Strategies by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from teamster.errors import UsageError
from teamster.spine.plan.plan import Plan
from teamster.train.strategies.auto import NOT_IN_THREADS, Measuring
from teamster.train.strategies.ddp import Ranks
from teamster.train.strategies.dp import Replicated
from teamster.train.strategies.launched import Launched
from teamster.train.strategies.single import Single
from teamster.train.strategies.strategy import Strategy, device_of, has_statistics
from teamster.train.strategies.world import World, is_one_of_several, ranks_around

NAMES = "auto", "single", "dp", "ddp", "fsdp"


def make_strategy(
    name: str,
    module: nn.Module,
    workers: int | None,
    retries: int,
    *,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    sync_batchnorm: bool = False,
) -> Strategy:
    """A strategy by its name.

    Args:
        name: one of `NAMES`.
        module: the user's.
        workers: replicas or ranks; None to find out.
        retries: deaths of ranks that it outlives.
        optimizers: of the module.
        sync_batchnorm: whether BatchNorm has the statistics of the whole batch.

    Raises:
        UsageError: there is none of this name, or it cannot run here.

    Example:
        >>> make_strategy("single", nn.Linear(1, 1), None, 1).name
        'single'
    """
    if name in ("single", "dp") and (ranks := ranks_around()) > 1:
        raise UsageError(
            f"strategy {name!r} is for one program, and this is one of {ranks} ranks: take 'ddp', "
            "or start the script without torchrun"
        )
    if name == "single":
        if workers not in (None, 1):
            raise UsageError(f"strategy 'single' has one worker, not {workers}")
        return Single(module)
    if name == "dp":
        if sync_batchnorm and has_statistics(module):
            raise UsageError(NOT_IN_THREADS)
        return Replicated(module, workers)
    if name == "fsdp":
        return _sharded(module, optimizers, sync_batchnorm=sync_batchnorm)
    if name in ("ddp", "auto") and is_one_of_several():
        return _among(module, lambda world: Launched(module, world, sync_batchnorm=sync_batchnorm))
    if name == "ddp":
        return Ranks(module, workers, retries, sync_batchnorm=sync_batchnorm)
    if name == "auto":
        return Measuring(module, workers, retries, sync_batchnorm=sync_batchnorm)
    raise UsageError(f"strategy must be one of {', '.join(map(repr, NAMES))}; not {name!r}")


def _sharded(
    module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], *, sync_batchnorm: bool
) -> Strategy:
    if not is_one_of_several():
        raise UsageError(
            "strategy 'fsdp' shards a model over ranks, and this is one program: start it with "
            "torchrun --nproc-per-node=2, or take 'ddp'"
        )
    if sync_batchnorm and has_statistics(module):
        raise UsageError("sync_batchnorm= is not for strategy 'fsdp': take 'ddp'")
    # Not imported with the module: it is half a second of imports
    from teamster.train.strategies.fsdp import Sharded, check_sharding

    check_sharding(module, optimizers)
    return _among(module, lambda world: Sharded(module, world, optimizers))


def _among(module: nn.Module, make: Callable[[World], Strategy]) -> Strategy:
    """A strategy among the ranks, which it leaves again where it cannot be made."""
    world = World(device_of(module))
    try:
        return make(world)
    except BaseException:
        world.close()
        raise


def plan_of(strategy: Strategy) -> Plan:
    """What a strategy is, and why it was chosen.

    Args:
        strategy: any.

    Example:
        >>> print(plan_of(Single(nn.Linear(1, 1))))
        single(1): asked for
    """
    own: Plan | None = getattr(strategy, "plan", None)
    plan = own or Plan(strategy.name, strategy.workers, "asked for")
    if not strategy.differs:
        return plan
    return Plan(plan.backend, plan.workers, f"{plan.reason}; {strategy.differs}", plan.candidates)
