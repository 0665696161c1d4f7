# SPDX-License-Identifier: BSD-3-Clause
"""The ranks that torchrun has started: who this one is, and how the others are.

::

    each rank, every second:  store["teamster/rank1"] = host, process, step, what it does
    a rank that waits:        asks for the stacks of those that have not come;
                              their threads answer, though their programs are stuck elsewhere

So a rank that is late or gone is named by the others, before the backend's own timeout.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist

from teamster.errors import UsageError, WorkerDied
from teamster.machine.own_threads import own_thread
from teamster.train.strategies.torch_blocks import TorchBlocks, end_program

_BEAT_S = 0.5  # between two signs of life
_GONE_S = 3.0  # without one: the rank has ended, or its machine has
_ASK_S = 0.1  # between two looks whether the others have come
_AGREE_S = 0.005  # the same, where it is asked for in the store
_VARIABLES = "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"


def is_one_of_several() -> bool:
    """Whether this program was started as a rank, by torchrun or another launcher.

    Example:
        >>> is_one_of_several()
        False
    """
    return all(os.environ.get(name) for name in _VARIABLES) or (
        dist.is_available() and dist.is_initialized()
    )


def ranks_around() -> int:
    """How many ranks there are, this program included.

    Example:
        >>> ranks_around()
        1
    """
    if dist.is_available() and dist.is_initialized():
        return int(dist.get_world_size())
    return int(os.environ["WORLD_SIZE"]) if is_one_of_several() else 1


_worlds = {"open": 0, "made": False, "groups": 0, "number": 0}
"""How many use the process group, whether it is one of ours, how many of ours there were, and of
which number the latest world is."""


def _meet(backend: str, timeout: timedelta) -> None:
    """Make the process group.

    A second one finds in the launcher's store where the ranks of the first were, and gloo may take
    that for where they are (torch 2.13): so each has keys of its own. The same holds when torchrun
    restarts the ranks of its own node; where there are several, each may have been restarted
    another number of times.
    """
    single = os.environ.get("GROUP_WORLD_SIZE") == "1"
    life = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if single else 0
    group, _worlds["groups"] = _worlds["groups"], _worlds["groups"] + 1
    if not life and not group:
        dist.init_process_group(backend, timeout=timeout)
        return
    found, rank, size = next(dist.rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(f"life {life}, group {group}", found)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


class World:
    """This rank among the others.

    Args:
        device: where it computes: NCCL for CUDA, else gloo.
        patience_s: how long the others may be late before that is an error.

    Attributes:
        rank, size: as torch.distributed counts.

    Raises:
        UsageError: several ranks share one device of CUDA's.
    """

    def __init__(self, device: torch.device, patience_s: float = 600.0) -> None:
        self._is_open = True
        if not dist.is_initialized():
            _worlds["made"] = True
            backend = "nccl" if device.type == "cuda" else "gloo"
            _meet(backend, timedelta(seconds=2 * patience_s))
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._others = [rank for rank in range(self.size) if rank != self.rank]
        self.host = socket.gethostname()
        self._patience_s = patience_s
        self._step = self._arrived = self._entered = 0
        self._phase = "start"
        self._main = threading.get_ident()
        _worlds["number"] += 1  # the same in all ranks
        prefix = f"teamster, {_worlds['number']}"
        self._store: Any = dist.PrefixStore(prefix, dist.distributed_c10d._get_default_store())
        self._blocks = TorchBlocks(self._store, self.rank, self._others, self._gone)
        self._agreed: Counter[str] = Counter()
        self._ended = threading.Event()
        _worlds["open"] += 1
        if device.type == "cuda":
            self._check_devices(device)
        self._tell()
        own_thread(
            threading.Thread(target=self._beat, name="teamster-heartbeat", daemon=True)
        ).start()

    def _check_devices(self, device: torch.device) -> None:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, (self.host, str(device)))
        if len(set(found)) < self.size:
            raise UsageError(
                f"several ranks compute on {device} of {self.host}: NCCL wants a device a rank; "
                "start fewer with --nproc-per-node, or take strategy 'dp'"
            )

    # --- signs of life ----------------------------------------------------------------------------

    def enter(self, step: int, phase: str) -> None:
        """What this rank does from now on, for the others."""
        self._step, self._phase = step, phase
        self._entered += 1

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            try:
                self._tell()
                self._end_if_stuck()
            except Exception:  # the rank that keeps the store has ended
                return

    def _tell(self) -> None:
        told = {
            "host": self.host,
            "pid": os.getpid(),
            "step": self._step,
            "phase": self._phase,
            "arrived": self._arrived,
            "entered": self._entered,
            "time": time.time(),
        }
        if self._store.check([f"stack of {self.rank}"]):
            frame = sys._current_frames().get(self._main)
            told["stack"] = "".join(traceback.format_stack(frame)[-6:]) if frame else ""
        self._store.set(f"rank {self.rank}", json.dumps(told))

    def _told(self, rank: int) -> dict[str, Any]:
        with contextlib.suppress(Exception):
            if self._store.check([f"rank {rank}"]):
                found: dict[str, Any] = json.loads(self._store.get(f"rank {rank}"))
                return found
        return {}

    # --- collectives of torch's own ---------------------------------------------------------------

    def together(self) -> contextlib.AbstractContextManager[None]:
        """A block in which torch has the ranks meet: an error of one is raised in all of them."""
        return self._blocks.together()

    def _end_if_stuck(self) -> None:
        """End this program, where torch waits for a rank that will not come: nothing else does."""
        if (found := self._blocks.stuck(self._patience_s)) is not None:
            waited, why = found
            why = f"in step {self._step}, {why}" if why else self._late(waited)
            if self._blocks.is_still_stuck():
                end_program(self.rank, why)

    # --- collectives ------------------------------------------------------------------------------

    def sum(self, tensor: torch.Tensor) -> None:
        """Of all ranks, in place."""
        self._wait(dist.all_reduce(tensor, async_op=True))

    def most(self, tensor: torch.Tensor) -> None:
        """The largest of all ranks, in place."""
        self._wait(dist.all_reduce(tensor, dist.ReduceOp.MAX, async_op=True))

    def agree(self, what: str, value: Any) -> list[Any]:
        """What each rank has, of a call that one may have made alone, which is an error.

        Args:
            what: the call, for people.
            value: of this rank.

        Raises:
            UsageError: another rank has gone on without it.
        """
        self._agreed[what] += 1
        number = self._agreed[what]
        places = [f"{what} {number} of {rank}" for rank in range(self.size)]
        self._store.set(places[self.rank], pickle.dumps(value))
        self._store.delete_key(f"{what} {number - 2} of {self.rank}")  # which all have read
        began = time.monotonic()
        while missing := [rank for rank in self._others if not self._store.check([places[rank]])]:
            told = self._told(missing[0])
            if told.get("entered", 0) > self._entered and not self._store.check(
                [places[missing[0]]]
            ):
                raise UsageError(
                    f"{what} was called in rank {self.rank}, and rank {missing[0]} has gone on to "
                    f"step {told['step']}, {told['phase']}, without it: each rank has a part of "
                    f"the model, and all of them have to call {what}"
                )
            if time.monotonic() - began > self._patience_s:
                raise WorkerDied(self._late(self._patience_s))
            if told and time.time() - told["time"] > _GONE_S:
                raise WorkerDied(self._gone())
            time.sleep(_AGREE_S)
        return [pickle.loads(self._store.get(place)) for place in places]

    def gather(self, value: Any) -> list[Any]:
        """What each rank has."""
        found: list[Any] = [None] * self.size
        self._guard(lambda: dist.all_gather_object(found, value))
        return found

    def broadcast(self, tensor: torch.Tensor) -> None:
        """That of rank 0, in place."""
        self._wait(dist.broadcast(tensor, 0, async_op=True))

    def _wait(self, work: Any) -> None:
        """Until all ranks have come.

        Raises:
            WorkerDied: one is gone, or late by more than the patience.
        """
        self._arrived += 1
        began = time.monotonic()
        while not work.is_completed():
            waited = time.monotonic() - began
            if waited < 2 * _ASK_S:
                time.sleep(0 if waited < 1e-3 else 50e-6)
                continue
            time.sleep(_ASK_S)
            if waited > self._patience_s:
                raise WorkerDied(self._late(waited))
        self._guard(work.wait)

    def _guard(self, action: Any) -> None:
        try:
            action()
        except RuntimeError as error:
            raise WorkerDied(self._gone()) from error

    def _gone(self) -> str:
        """Who has given no sign of life."""
        until = time.monotonic() + 2 * _GONE_S
        while time.monotonic() < until:
            for rank in self._others:
                told = self._told(rank)
                if told and time.time() - told["time"] > _GONE_S:
                    return (
                        f"rank {rank} (process {told['pid']} on {told['host']}) has ended: its "
                        f"last sign of life was in step {told['step']}, {told['phase']}; its own "
                        "output says why, or the system's log, if it was killed. Start again and "
                        "load the latest checkpoint"
                    )
            time.sleep(_BEAT_S)
        return "a rank has ended, and which one cannot be told: the others' output may say"

    def _late(self, waited: float) -> str:
        missing = [
            rank for rank in self._others if self._told(rank).get("arrived", 0) < self._arrived
        ] or self._others
        for rank in missing:
            self._store.set(f"stack of {rank}", "1")
        for _ in range(3):  # and this may be the thread that gives signs of life
            time.sleep(_BEAT_S)
            self._tell()
        lines = [f"waited {waited:.0f} s in step {self._step} for"]
        for rank in missing:
            told = self._told(rank)
            where = f" (process {told['pid']} on {told['host']})" if told else ""
            doing = f" in step {told['step']}, {told['phase']}" if told else ""
            lines.append(f"rank {rank}{where}, which is{doing}:\n{told.get('stack', '')}")
        return "\n".join(lines)

    def close(self) -> None:
        """No more signs of life; the last one ends the process group, if that is ours."""
        if not self._is_open:
            return
        self._is_open = False
        self._ended.set()
        _worlds["open"] -= 1
        if not _worlds["open"] and _worlds["made"] and dist.is_initialized():
            _worlds["made"] = False
            with contextlib.suppress(Exception):
                dist.destroy_process_group()
