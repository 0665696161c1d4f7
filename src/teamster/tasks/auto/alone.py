# SPDX-License-Identifier: BSD-3-Clause
"""A map call that its caller runs alone.

This is `backend="serial"`: one item after the other, each pulled when the one before is done.
"""

from __future__ import annotations

from collections.abc import Callable

from teamster.tasks.arguments import MapCall
from teamster.tasks.auto.own_items import OwnItemsMapping
from teamster.tasks.teams import Teams

_SLICE_NS = 5_000_000  # until it looks whether its consumer has enough


class AloneMapping(OwnItemsMapping):
    """One map call under way, in the caller."""

    def __init__(self, call: MapCall, teams: Teams) -> None:
        super().__init__(call, teams)
        if not call.lazy:
            self._here.run_alone()

    def _run_until(self, done: Callable[[], bool]) -> None:
        while not self._is_over(done) and not self._source.exhausted and self.error is None:
            self._patience.ends()
            self._teams.prepare_here()
            self._here.run(_SLICE_NS, self._has_enough)
            self._note_here()

    def _look_after(self) -> None:
        """There are no workers."""
