# SPDX-License-Identifier: BSD-3-Clause
"""Settings that take turns over steps which repeat, until the fastest is known.

Such settings are numbers of replicas, numbers of loader workers, strategies.

::

    settings a, b, c:  a b c a b c a b a b ...  -->  the fastest, for some hundred steps
                       -->  turns again, and so on

What is more than twice as slow as the fastest has no further turn. A step may have a second part
that comes later, as a backward pass does: where one of each setting had that, both parts count.
After some hundred steps the settings take turns again, since what was measured on a busy machine
does not stay for good. This module knows no clock and starts nothing: the caller tells the seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

_TURNS = 4  # of each; the first is a warm-up
_WORTH = 0.95  # of the time of the first setting: what another one must reach to take its place
_HOPELESS = 2.0  # times the fastest: no further turn
_AGAIN = 500  # steps until the next turns, and twice as many each time

Setting = TypeVar("Setting")


class Turn(Generic[Setting]):
    """One step with one setting.

    Attributes:
        setting: with which it is done.
        seconds: of the step.
        later_seconds: of the part that came later; 0 where there was none.
    """

    __slots__ = ("_ended", "_number", "_trials", "later_seconds", "seconds", "setting")

    def __init__(
        self, trials: Trials[Setting], setting: Setting, ended: list[Turn[Setting]] | None
    ) -> None:
        self._trials = trials
        self._number = trials.begun
        # Those of this setting in this round: a turn that ends after the round counts for nothing
        self._ended = ended
        self.setting = setting
        self.seconds = self.later_seconds = 0.0

    @property
    def counts(self) -> bool:
        """Whether its time is looked at; else its setting is the chosen one."""
        return self._ended is not None

    @property
    def is_latest(self) -> bool:
        """Whether no other step has begun since."""
        return self._trials.begun == self._number

    def end(self, seconds: float) -> None:
        """The step took so long."""
        self.seconds = seconds
        if self._ended is not None:
            self._ended.append(self)


class Trials(Generic[Setting]):
    """The turns of one kind of step; several threads may step.

    Args:
        settings: the first one stays unless another is clearly faster.

    Attributes:
        best: the fastest, as far as one knows.
        begun: how many steps there were.

    Example:
        >>> trials = Trials(["one", "two"])
        >>> while trials.is_open():
        ...     turn = trials.begin()
        ...     turn.end(1.0 if turn.setting == "one" else 0.5)
        >>> trials.best
        'two'
    """

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._settings = list(settings)
        self._ended: dict[Setting, list[Turn[Setting]]] = {setting: [] for setting in settings}
        self._open = len(self._settings) > 1
        self._pause = self._left = _AGAIN
        self._lock = threading.Lock()
        self.best = self._settings[0]
        self.begun = 0

    def is_open(self) -> bool:
        """Whether they take turns."""
        with self._lock:
            return self._is_open()

    def _is_open(self) -> bool:
        if self._open and all(len(self._ended[setting]) >= _TURNS for setting in self._hopeful()):
            self._conclude()
        return self._open

    def _hopeful(self) -> list[Setting]:
        """Those that may still be the fastest; the first of them always."""
        seconds, first = self._seconds(), self._settings[0]
        least = min(seconds.values(), default=0.0)
        return [
            setting
            for setting in self._settings
            if setting == first or seconds.get(setting, 0.0) <= _HOPELESS * least
        ]

    def _seconds(self) -> dict[Setting, float]:
        """The shortest turns so far, after the first.

        They include the later part where all have had one.
        """
        turns = {setting: ended[1:] for setting, ended in self._ended.items() if len(ended) > 1}
        if all(any(turn.later_seconds for turn in each) for each in turns.values()):
            return {
                setting: min(
                    turn.seconds + turn.later_seconds for turn in each if turn.later_seconds
                )
                for setting, each in turns.items()
            }
        return {setting: min(turn.seconds for turn in each) for setting, each in turns.items()}

    def begin(self) -> Turn[Setting]:
        """The next step: what had fewest turns has it, or the best."""
        with self._lock:
            self.begun += 1
            if self._is_open():
                setting = min(self._hopeful(), key=lambda setting: len(self._ended[setting]))
                return Turn(self, setting, self._ended[setting])
            if len(self._settings) > 1:
                self._left -= 1
                self._open = self._left <= 0
            return Turn(self, self.best, None)

    def rule_out(self) -> None:
        """Nothing but the first setting can do it: no more trials."""
        with self._lock:
            self.best = self._settings[0]
            self._settings, self._open = self._settings[:1], False

    def _conclude(self) -> None:
        seconds = self._seconds()
        first, fastest = self._settings[0], min(seconds, key=seconds.__getitem__)
        self.best = fastest if seconds[fastest] < _WORTH * seconds[first] else first
        self._ended = {setting: [] for setting in self._settings}
        self._open = False
        self._left = self._pause
        self._pause *= 2
