# SPDX-License-Identifier: BSD-3-Clause
"""The batches of a training: whole ones, or a rank's rows; and where their loader is."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from teamster.train.rank_batches import RankLoader, same_random_numbers
from teamster.train.strategies.launched import Launched
from teamster.train.strategies.strategy import Strategy, Work


class Loading:
    """Goes through loaders.

    Args:
        strategy: of the training.

    Attributes:
        is_through: whether the latest loader of the training has given all of its batches.

    Example:
        >>> from teamster.train.strategies.single import Single
        >>> loading = Loading(Single(None))
        >>> list(loading.batches([1, 2])), loading.state()
        ([1, 2], None)
    """

    def __init__(self, strategy: Strategy) -> None:
        self._launched = strategy if isinstance(strategy, Launched) else None
        self._rank_loaders: weakref.WeakKeyDictionary[Any, RankLoader] = weakref.WeakKeyDictionary()
        self._loader: Any = None  # the latest, whose position is saved
        self._position: Any = None  # of a checkpoint, for the next loader
        # Of the loaders that give rows of this rank at the moment, the latest last: whether the
        # batch that each has given is another rank's
        self._borrowed: dict[object, bool] = {}
        self.is_through = False

    def mark(self, work: Work) -> Work:
        """Say whose rows the latest batch has: this rank's, another's, or those of all.

        Args:
            work: of that batch.
        """
        if not self._borrowed:
            return work
        return replace(work, is_own=True, is_borrowed=list(self._borrowed.values())[-1])

    def batches(self, loader: Iterable[Any], *, training: bool = True) -> Iterator[Any]:
        """Those of a loader, from where a checkpoint was on.

        Args:
            loader: its batches are whole ones.
            training: whether its position is of the training.
        """
        source = loader if self._launched is None else self._of_rank(loader, self._launched)
        if training:
            self.is_through = False
            self._loader = source
            position, self._position = self._position, None
            if position is not None and hasattr(source, "load_state_dict"):
                source.load_state_dict(position)
        yield from self._here(source, training)
        if training:
            self.is_through = True

    def _here(self, source: Iterable[Any], training: bool) -> Iterator[Any]:
        if self._launched is None or not isinstance(source, RankLoader):
            yield from source
            return
        same_random_numbers(self._launched.world.broadcast)
        if not training:
            self._launched.share_buffers()
        me = object()
        try:
            for batch, is_borrowed in source.with_owners():
                self._borrowed.pop(me, None)
                self._borrowed[me] = is_borrowed
                yield batch
        finally:
            self._borrowed.pop(me, None)

    def _of_rank(self, loader: Any, launched: Launched) -> RankLoader:
        # Kept with the loader, so that workers that stay do so
        try:
            known = self._rank_loaders.get(loader)
        except TypeError:  # a list, which nothing can be kept with
            return RankLoader(loader, launched.rows, lends=launched.borrows)
        if known is None:
            known = RankLoader(loader, launched.rows, lends=launched.borrows)
            self._rank_loaders[loader] = known
        return known

    def state(self) -> Any:
        """The position of the latest loader; None where it has none."""
        state = getattr(self._loader, "state_dict", None)
        return None if state is None else state()

    def go_to(self, position: Any) -> None:
        """Have the next loader begin there."""
        self._position = position
