# SPDX-License-Identifier: BSD-3-Clause
"""A map call of which the caller runs items itself: where their results go, and how they are counted."""

from __future__ import annotations

from typing import Any

from teamster.tasks.call import MapCall
from teamster.tasks.here import Here
from teamster.tasks.mapping import Mapping
from teamster.tasks.roster import Roster


class OwnItemsMapping(Mapping):
    """One map call under way, partly in the caller."""

    def __init__(self, call: MapCall, roster: Roster) -> None:
        super().__init__(call)
        self._roster = roster
        self._here = Here(call.function, call.style, call.seed, call.source, self)
        self._noted = 0, 0  # items and time of the caller that the ledger knows

    def take_here(self, first: int, values: list[Any]) -> None:
        """Results of consecutive items."""
        with self._roster.lock:
            self._roster.here.items += len(values)
            self._take_values(first, values)

    def list_here(self, first: int) -> list[Any] | None:
        """The results themselves, while the caller is alone: one copy less."""
        return self._ready if not self._legs and isinstance(self._ready, list) and first == self._next else None

    def took_here(self, count: int) -> None:
        """So many results are in them now."""
        with self._roster.lock:
            self._roster.here.items += count
        self._reported += count
        self._next += count
        self._bar.add(count)

    def fail_here(self, index: int, error: BaseException) -> bool:
        """What an item raised; with `raise_errors` it is the last that runs."""
        with self._roster.lock:
            self._roster.here.items += 1
            self._roster.here.failures += 1
            self._take_error(index, error)
        return not self._raise_errors

    def _note_here(self) -> None:
        """Bring the ledger's account of the caller up to date."""
        here, (items, busy_ns) = self._here, self._noted
        self._noted = here.items, here.run_ns
        with self._roster.lock:
            self._roster.here.note(0, here.items - items, here.run_ns - busy_ns)
