# SPDX-License-Identifier: BSD-3-Clause
"""What one peer has been told: definitions of originals, places of modules, each before the first thing that needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from teamster.spine.transport import modules, originals
from teamster.spine.transport.originals import Definition
from teamster.spine.transport.parcel import Parcel

Lesson = tuple[int, Any]
"""Number and stowed pickle of a definition; or 0 and places."""


class Lessons:
    """Those of one channel: which the peer has, and which go with the next message."""

    def __init__(self) -> None:
        self._taught: set[int] = set()
        self._next: list[Lesson] = []

    def add(self, needs: tuple[Definition, ...], stow: Callable[[Parcel], Any]) -> None:
        """Have the peer learn what it `needs` and does not have."""
        for definition in needs:
            if definition.number == 0:
                self._next.append((0, definition.data))
            elif definition.number not in self._taught:
                self._taught.add(definition.number)
                self._next.append((definition.number, stow(Parcel(definition.data, [], (), definition.passed))))

    def take(self) -> list[Lesson]:
        """Those for the next message."""
        lessons, self._next = self._next, []
        return lessons


def learn(lessons: list[Lesson], parts: Callable[[Any], tuple[Any, list[memoryview]]]) -> None:
    """Keep what has come until somebody asks for it."""
    for number, lesson in lessons:
        if number:
            originals.expect(number, parts(lesson)[0])
        else:
            modules.adopt(lesson)
