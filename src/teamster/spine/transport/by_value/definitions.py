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

Lesson = tuple[int, Any]
"""What a peer is to learn: a number, and what belongs to it.

It is the number and the stowed pickle of a definition; or 0 and places; or -1 and the keys of
originals that are gone.
"""


class Lessons:
    """Those of one channel: which the peer has, and which go with the next message."""

    def __init__(self) -> None:
        self._taught: set[int] = set()
        self._keys: set[int] = set()
        self._gone: deque[int] = deque()  # filled by any thread
        self._next: list[Lesson] = []

    def add(self, needs: tuple[Definition, ...], stow: Callable[[Parcel], Any]) -> None:
        """Have the peer learn what it `needs` and does not have."""
        for definition in needs:
            if definition.keys:
                originals.mourners.add(self._mourn)
                self._keys.update(definition.keys)
            if definition.number == _PLACES:
                self._next += [(_PLACES, definition.data)] if definition.data else []
            elif definition.number not in self._taught:
                self._taught.add(definition.number)
                self._next.append(
                    (definition.number, stow(Parcel(definition.data, [], (), definition.passed)))
                )

    def _mourn(self, key: int) -> None:
        if key in self._keys:
            self._keys.discard(key)
            self._gone.append(key)

    def take(self) -> list[Lesson]:
        """Those for the next message."""
        if self._gone:
            self._next.append((_GONE, [self._gone.popleft() for _ in range(len(self._gone))]))
        lessons, self._next = self._next, []
        return lessons

    def close(self) -> None:
        """No peer learns here any more."""
        originals.mourners.discard(self._mourn)


def learn(lessons: list[Lesson], parts: Callable[[Any], tuple[Any, list[memoryview]]]) -> None:
    """Keep what has come until it is asked for."""
    for number, lesson in lessons:
        if number == _PLACES:
            modules.adopt(lesson)
        elif number == _GONE:
            originals.let_go(lesson)
        else:
            originals.expect(number, parts(lesson)[0])
