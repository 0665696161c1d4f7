# SPDX-License-Identifier: BSD-3-Clause
"""Devices that differ: how many samples each gets, and a warning where one holds up the others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch

from teamster.parallel.scattering import Chunk, chunk_sizes

_LEAST_SHARE = 0.05  # of the fastest device's, for the slowest: or it would never be measured again
_FRESH = 0.5  # weight of the newest measurement
_ALIKE = 0.75  # of the largest: what torch's own warning takes for alike

Weights = Sequence[float] | Literal["measured"] | None


class Weighing:
    """Shares out the samples of each batch.

    Args:
        devices: how many.
        weights: their speeds in any unit, or "measured"; None for equal ones.

    Raises:
        UsageError: there are not as many weights as devices, or they are no speeds.

    Example:
        >>> Weighing(2, [3, 1]).sizes(8, 2)
        [6, 2]
    """

    def __init__(self, devices: int, weights: Weights) -> None:
        self._devices = devices
        self._weights = None if weights == "measured" else weights
        self._speeds = Speeds(devices) if weights == "measured" else None
        chunk_sizes(0, devices, self._weights)  # says what is wrong with them

    @property
    def weights(self) -> Sequence[float] | None:
        """Speeds of the devices, as far as they are known; None for equal ones."""
        return self._speeds.weights if self._speeds else self._weights

    def sizes(self, samples: int, replicas: int) -> list[int]:
        """Of the slices.

        Args:
            samples: in the batch.
            replicas: among how many devices; the weights are for all of them.

        Returns:
            Sizes that sum to `samples`.
        """
        sizes = chunk_sizes(samples, replicas, self.weights if replicas == self._devices else None)
        # The first device has the module, and keeps what it writes into its buffers; one that had
        # nothing would never be measured again.
        for index in range(replicas if self._speeds and samples >= replicas else min(samples, 1)):
            if not sizes[index]:
                sizes[sizes.index(max(sizes))] -= 1
                sizes[index] = 1
        return sizes

    def learn(self, chunks: Sequence[Chunk], took_ns: dict[int, int]) -> None:
        """A step has ended; see `Speeds.learn`."""
        if self._speeds is not None:
            self._speeds.learn(chunks, took_ns)


class Speeds:
    """Samples per nanosecond of each device.

    Args:
        devices: how many.

    Attributes:
        weights: of the slices to come.

    Example:
        >>> Speeds(2).weights
        [1.0, 1.0]
    """

    def __init__(self, devices: int) -> None:
        self._known: list[float | None] = [None] * devices
        self._warm = False
        self.weights = [1.0] * devices

    def learn(self, chunks: Sequence[Chunk], took_ns: dict[int, int]) -> None:
        """A step has ended.

        Args:
            chunks: what each replica had.
            took_ns: of its forward pass, by the number of the chunk.
        """
        if not self._warm:  # the first one pays for what the others find done
            self._warm = True
            return
        for number, chunk in enumerate(chunks):
            speed, before = chunk.size / max(1, took_ns.get(number, 1)), self._known[chunk.index]
            self._known[chunk.index] = (
                speed if before is None else before + _FRESH * (speed - before)
            )
        fastest = max(speed for speed in self._known if speed is not None)
        self.weights = [
            max(_LEAST_SHARE * fastest, fastest if speed is None else speed)
            for speed in self._known
        ]


def warn_of_imbalance(devices: Sequence[torch.device]) -> None:
    """Look at the GPUs' memory and cores.

    Args:
        devices: those that will be used; only CUDA's can be asked.

    Example:
        >>> warn_of_imbalance([torch.device("cpu")])
    """
    if devices[0].type != "cuda":
        return
    facts = [torch.cuda.get_device_properties(device) for device in devices]
    if told := describe_imbalance(devices, facts):
        warnings.warn(told, stacklevel=3)


def describe_imbalance(devices: Sequence[Any], facts: Sequence[Any]) -> str:
    """Say which device is too small beside which other.

    Args:
        devices: their names.
        facts: of each ``total_memory`` in bytes and ``multi_processor_count``.

    Returns:
        A sentence; empty when they are alike.

    Example:
        >>> from types import SimpleNamespace as Facts
        >>> both = [Facts(total_memory=8, multi_processor_count=4)] * 2
        >>> describe_imbalance(["cuda:0", "cuda:1"], both)
        ''
    """
    for what, attribute in (("memory", "total_memory"), ("cores", "multi_processor_count")):
        sizes = [getattr(each, attribute) for each in facts]
        least, most = sizes.index(min(sizes)), sizes.index(max(sizes))
        if sizes[least] < _ALIKE * sizes[most]:
            share = sizes[least] / sizes[most]
            return (
                f"device {devices[least]} has {share:.0%} of the {what} of device {devices[most]}, "
                "and each step waits for the slower; leave it out of device_ids, or give weights= "
                "(weights='measured' finds them)"
            )
    return ""
