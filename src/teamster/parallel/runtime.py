# SPDX-License-Identifier: BSD-3-Clause
"""What a `DataParallel` has in one process, never pickled: threads, replicas, measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import Any

import torch
from torch import nn

from teamster.parallel.accelerators import OneGraph
from teamster.parallel.applying import apply_checked, inner_threads
from teamster.parallel.auto import Choosing, Trial
from teamster.parallel.balance import Weighing, Weights
from teamster.parallel.cpu import CpuReplicas
from teamster.parallel.gathering import Comparing
from teamster.parallel.scattering import Chunk, batch_size, batch_size_or_none, slices
from teamster.parallel.step_report import StepTimer
from teamster.parallel.threads import DeviceThreads, StepLock
from teamster.parallel.validation import check_placement
from teamster.tensors.devices import DeviceLike


@dataclass(frozen=True, slots=True)
class Settings:
    """What a runtime was made for; another one takes its place when these change.

    Attributes:
        module: the user's.
        devices: where replicas are.
        weights: of the slices.
        fixed: whether the number of replicas is given, and not measured.
    """

    module: nn.Module
    devices: list[torch.device]
    weights: Weights
    fixed: bool

    def are(
        self, module: nn.Module, devices: list[torch.device], weights: Weights, *, fixed: bool
    ) -> bool:
        """Whether a runtime for these would be the same.

        Args:
            module: as above.
            devices: as above.
            weights: as above.
            fixed: as above.

        Returns:
            False where one of them is another.
        """
        return (
            self.module is module
            and self.devices == devices
            and self.weights is weights
            and self.fixed is fixed
        )


class Runtime:
    """Threads, replicas and measurements.

    Args:
        settings: for what.

    Attributes:
        threads: by the number of replicas that they are for.

    Example:
        >>> runtime = Runtime(Settings(nn.Identity(), [torch.device("cpu")] * 2, None, True))
        >>> from teamster.parallel.auto import StepKind
        >>> trial = runtime.choosing.begin(StepKind(by_step=False, with_grad=False, training=False))
        >>> chunks = runtime.scatter((torch.arange(3),), {}, 0, trial)
        >>> [chunk.inputs[0].tolist() for chunk in chunks]
        [[0, 1], [2]]
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        devices, fixed = settings.devices, settings.fixed
        self.on_cpu = devices[0].type == "cpu"
        self.threads: dict[int, DeviceThreads] = {}
        self.timing = StepTimer()
        self.choosing = Choosing(len(devices), fixed=fixed, cpu=self.on_cpu)
        self.comparing = Comparing()
        self.step_lock = StepLock()
        self.weighing = Weighing(len(devices), settings.weights)
        self.cpu = CpuReplicas(settings.module, len(devices) if fixed else 1, self.timing)
        self.accelerators = OneGraph(settings.module, devices[0], self.timing)

    @property
    def may_try(self) -> bool:
        """Whether the plain module may run in place of replicas, which were not asked for."""
        return self.on_cpu and not self.settings.fixed

    def scatter(
        self, inputs: tuple[Any, ...], kwargs: dict[str, Any], dim: int, trial: Trial
    ) -> list[Chunk]:
        """Step 1: slices of the batch, one for each replica that has something to do.

        Args:
            inputs: positional arguments.
            kwargs: keyword arguments.
            dim: along which samples are counted.
            trial: of the pass; told how many samples there are.

        Returns:
            At least one.
        """
        began = perf_counter_ns()
        settings = self.settings
        check_placement(settings.module, settings.devices[0])
        counting = batch_size if trial.replicas > 1 else batch_size_or_none
        count = counting((inputs, kwargs), dim)
        trial.samples = count or 1
        trial.began_s = perf_counter()
        # Where nothing can be sliced all devices get all of it, as torch has it; or one, where
        # there is nothing at all.
        whole = [1] * (trial.replicas if inputs or kwargs else 1)
        sizes = whole if count is None else self.weighing.sizes(count, trial.replicas)
        used = [index for index, size in enumerate(sizes) if size] or [0]
        sizes = [sizes[index] for index in used]
        devices = [settings.devices[index] for index in used]
        rows = zip(slices((inputs, kwargs), sizes, devices, dim), sizes, devices, used, strict=True)
        chunks = [
            Chunk(given, named, size, device, index) for (given, named), size, device, index in rows
        ]
        self.timing.begin_step(len(chunks))
        self.timing.note_phase("scatter", -1, began)
        return chunks

    def lines(self, replicas: int) -> DeviceThreads:
        """The threads for as many replicas; the fewer they are, the more inner threads each has.

        Args:
            replicas: how many.

        Returns:
            Those of the passes before, where there were some.
        """
        if replicas not in self.threads:
            devices = self.settings.devices[:replicas]
            self.threads[replicas] = DeviceThreads(devices, inner_threads(devices))
        return self.threads[replicas]

    def apply(
        self,
        replicas: Sequence[Any],
        inputs: Sequence[Any],
        kwargs: Sequence[dict[str, Any]] | None,
        devices: Sequence[DeviceLike],
    ) -> list[Any]:
        """Step 3, where all replicas have one graph; see `parallel_apply`.

        Args:
            replicas: one a device.
            inputs: of each; a tuple, or a single one.
            kwargs: of each.
            devices: of each.

        Returns:
            Their outputs.
        """
        return apply_checked(
            replicas,
            inputs,
            kwargs,
            devices,
            lambda found: self.lines(len(found)),
            self.timing.note_phase,
        )

    def learn(self, chunks: Sequence[Chunk], trial: Trial, output: Any = None) -> None:
        """A pass, or its forward pass, is over.

        Args:
            chunks: what the replicas had.
            trial: of the pass.
            output: its graph tells when the backward pass is over.
        """
        trial.end(output)
        self.tidy()
        if len(chunks) > 1:
            self.choosing.hint(self.timing.steps, self.timing.at_once)
            self.weighing.learn(chunks, self.timing.latest)

    def tidy(self, *, failed: bool = False) -> None:
        """End the threads that a trial has left.

        Args:
            failed: whether a pass has failed: what it has set on the replicas is put back.
        """
        if failed:
            self.cpu.tidy()
        if self.settings.fixed or not self.threads:
            return
        if (used := self.choosing.in_use()) is not None:
            for count in self.threads.keys() - used:
                self.threads.pop(count).close()

    def close(self) -> None:
        """End the threads; a later pass starts others."""
        while self.threads:
            self.threads.popitem()[1].close()
