# SPDX-License-Identifier: BSD-3-Clause
"""What one peer has been told.

That is definitions of originals and places of modules, each told before the first thing that needs
it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from teamster.spine.transport.by_value import modules, originals
from teamster.spine.transport.parcel import Definition, Parcel

_PLACES, _GONE = 0, -1  # numbers that no definition has

SentDefinition = tuple[int, Any]
"""What a peer is to learn: a number, and what belongs to it.

It is the number and the stowed pickle of a definition; or 0 and places; or -1 and the keys of
originals that are gone.
"""


class UnsentDefinitions:
    """Those of one channel: which the peer has, and which go with the next message."""

    def __init__(self) -> None:
        self._taught: set[int] = set()
        self._keys: set[int] = set()
        self._gone: deque[int] = deque()  # filled by any thread
        self._next: list[SentDefinition] = []

    def add(self, needs: tuple[Definition, ...], stow: Callable[[Parcel], Any]) -> None:
        """Have the peer learn what it `needs` and does not have."""
        for definition in needs:
            if definition.keys:
                originals.on_gone.add(self._note_gone)
                self._keys.update(definition.keys)
            if definition.number == _PLACES:
                self._next += [(_PLACES, definition.data)] if definition.data else []
            elif definition.number not in self._taught:
                self._taught.add(definition.number)
                self._next.append(
                    (definition.number, stow(Parcel(definition.data, [], (), definition.passed)))
                )

    def _note_gone(self, key: int) -> None:
        if key in self._keys:
            self._keys.discard(key)
            self._gone.append(key)

    def take(self) -> list[SentDefinition]:
        """Those for the next message."""
        if self._gone:
            self._next.append((_GONE, [self._gone.popleft() for _ in range(len(self._gone))]))
        definitions, self._next = self._next, []
        return definitions

    def close(self) -> None:
        """No peer learns here any more."""
        originals.on_gone.discard(self._note_gone)


def define(
    definitions: list[SentDefinition], parts: Callable[[Any], tuple[Any, list[memoryview]]]
) -> None:
    """Keep what has come until it is asked for."""
    for number, definition in definitions:
        if number == _PLACES:
            modules.adopt(definition)
        elif number == _GONE:
            originals.let_go(definition)
        else:
            originals.expect(number, parts(definition)[0])
