# SPDX-License-Identifier: BSD-3-Clause
"""`weights="measured"`: how fast each device is, from the forward passes so far."""

from __future__ import annotations

from collections.abc import Sequence

from teamster.parallel.scattering import Piece

_LEAST_SHARE = 0.05  # of the fastest device's, for the slowest: or it would never be measured again
_FRESH = 0.5  # weight of the newest measurement


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
        self.weights = [1.0] * devices

    def learn(self, pieces: Sequence[Piece], took_ns: dict[int, int]) -> None:
        """A step has ended.

        Args:
            pieces: what each replica had.
            took_ns: of its forward pass, by the number of the piece.
        """
        for number, piece in enumerate(pieces):
            speed, before = piece.size / max(1, took_ns.get(number, 1)), self._known[piece.index]
            self._known[piece.index] = speed if before is None else before + _FRESH * (speed - before)
        fastest = max(speed for speed in self._known if speed is not None)
        self.weights = [max(_LEAST_SHARE * fastest, fastest if speed is None else speed) for speed in self._known]
