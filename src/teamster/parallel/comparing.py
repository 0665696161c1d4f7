# SPDX-License-Identifier: BSD-3-Clause
"""Whether replicas that nobody has named give what the plain module gives, as far as shapes tell."""

from __future__ import annotations

from typing import Any

from teamster.parallel.gathering import is_by_sample
from teamster.tensors.nest import tensors_of


class Comparing:
    """Keeps what the plain module had and gave at last.

    Example:
        >>> import torch
        >>> comparing = Comparing()
        >>> comparing.keep(torch.ones(4, 2), torch.ones(4, 4))
        >>> comparing.agrees(torch.ones(4, 2), torch.ones(4, 2), 4, 0), comparing.agrees(torch.ones(6, 2), torch.ones(6, 6), 6, 0)
        (False, True)
    """

    def __init__(self) -> None:
        self._given: list[tuple[int, ...]] = []
        self._output: list[tuple[int, ...]] = []

    def keep(self, given: Any, output: Any) -> None:
        """The plain module has made `output` of `given`."""
        self._given, self._output = _shapes_of(given), _shapes_of(output)

    def agrees(self, given: Any, output: Any, samples: int, dim: int) -> bool:
        """Whether replicas may have made what the plain module would have made.

        Args:
            given: inputs.
            output: gathered.
            samples: in the batch.
            dim: along which they are counted.

        Returns:
            False where there is not an entry for each sample, or where other shapes came of inputs of the same shapes.
        """
        return is_by_sample(output, samples, dim) and (_shapes_of(given) != self._given or _shapes_of(output) == self._output)


def _shapes_of(value: Any) -> list[tuple[int, ...]]:
    return [tuple(each.shape) if not each.is_nested else () for each in tensors_of(value)]
