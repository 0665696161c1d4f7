# SPDX-License-Identifier: BSD-3-Clause
"""Who fills batches: what every kind promises, and the consumer that does it itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

from teamster.data.fetch import Fetch, Made
from teamster.data.sampling import Seed
from teamster.spine.plan.plan import Plan


class NotInTime(TimeoutError):
    """A batch did not come in time; a dataset's own errors are of other classes."""


class OpenBatch(Protocol):
    """A batch that was begun."""

    @property
    def ready(self) -> bool:
        """Whether `result` would not wait."""

    def wait(self, seconds: float) -> None:
        """Until it may be ready, at most so long."""

    def result(self, timeout: float | None) -> Made:
        """The batch, when it is there.

        Args:
            timeout: seconds to wait at most; None for as long as it takes.

        Raises:
            NotInTime: it did not come; the text names what is slow, as far as that is known.
            Exception: what a sample, or the collation, raised.
        """


class Feed(Protocol):
    """Fills batches, the oldest first.

    Attributes:
        ahead: how many batches may be open at a time.
        warm_up: how many batches show nothing of how fast it is.
    """

    ahead: int
    warm_up: int

    @property
    def is_up(self) -> bool:
        """Whether a worker can begin at once: processes take a while to start.

        Raises:
            Exception: none can.
        """

    def is_current(self) -> bool:
        """Whether it reads the dataset as that is now; asked first when it is made."""

    def begin(self, indices: Any, seed: Seed) -> OpenBatch:
        """Begin a batch, behind those that were begun before.

        Args:
            indices: of the batch.
            seed: of its first sample.
        """

    def waited(self, seconds: float) -> None:
        """The consumer has got a batch, for which it has waited so long."""

    def pause(self) -> None:
        """The consumer asks for no more, for a while."""

    def memory_bytes(self) -> int:
        """Of worker processes: what each shares with others counts by its share (PSS)."""

    def close(self) -> None:
        """End the workers; open batches fail."""


class Inline:
    """The consumer makes each batch when it asks for it.

    Args:
        fetch: of the dataset.

    Example:
        >>> Inline(Fetch([3, 4], list, True)).begin([1, 0], Seed(0)).result(None).value
        [4, 3]
    """

    ahead = 0  # nothing is begun before it is asked for
    warm_up = 0
    is_up = True

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def is_current(self) -> bool:
        """It has the dataset itself."""
        return True

    def begin(self, indices: Any, seed: Seed) -> OpenBatch:
        """See `Feed.begin`."""
        return _InlineBatch(self._fetch, indices, seed)

    def waited(self, seconds: float) -> None:
        """It has made the batch."""

    def pause(self) -> None:
        """It does nothing in between."""

    def memory_bytes(self) -> int:
        """It has none of its own."""
        return 0

    def close(self) -> None:
        """Nothing has to end."""


class _Ready:
    ready = True

    def wait(self, seconds: float) -> None:
        """See `OpenBatch.wait`."""


class _InlineBatch(_Ready):
    def __init__(self, fetch: Fetch, indices: Any, seed: Seed) -> None:
        self._fetch = fetch
        self._indices = indices
        self._seed = seed

    def result(self, timeout: float | None) -> Made:
        return self._fetch.whole(self._indices, self._seed)


class Settled(_Ready):
    """A batch that was made, or has failed, already."""

    def __init__(self, made: Made | None, error: BaseException | None = None) -> None:
        self._made = made
        self._error = error

    @property
    def is_made(self) -> bool:
        """Whether it has not failed."""
        return self._made is not None

    def result(self, timeout: float | None) -> Made:
        """See `OpenBatch.result`."""
        if self._made is not None:
            return self._made
        error, self._error = self._error, None  # its traceback may lead back to here
        assert error is not None
        try:
            raise error
        finally:
            del error


def made_of(make: Callable[[], Made]) -> Settled:
    """What comes of making a batch now: it, or the error, for later.

    Example:
        >>> made_of(lambda: Made([1], 1)).result(None).value
        [1]
    """
    try:
        return Settled(make())
    except Exception as error:
        return Settled(None, error)
    finally:
        del make  # the error's traceback leads back to here, and from a future to its pool


class Feeds:
    """Has workers made, and keeps them from one epoch to the next.

    Args:
        make: makes workers as a plan says, with a seed.
        keep: whether they stay between epochs.

    Example:
        >>> feeds = Feeds(lambda plan, seed: Inline(Fetch([3], list, True)), keep=True)
        >>> plan = Plan("serial", 1, "asked for")
        >>> feed = feeds.take(plan, 0)
        >>> feeds.give_back(feed, plan)
        >>> feeds.take(plan, 0) is feed
        True
    """

    def __init__(self, make: Callable[[Plan, int], Feed], *, keep: bool) -> None:
        self._make = make
        self._keep = keep
        self._kept: tuple[Any, Feed] | None = None
        self.refused = False  # the latest could not be made
        self._latest: weakref.ref[Feed] | None = None

    def take(self, plan: Plan, seed: int) -> Feed:
        """Workers as the plan says; those of the epoch before where they are such."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == (plan.backend, plan.workers) and kept[1].is_current():
            return kept[1]
        if kept is not None:
            kept[1].close()
        self.refused = True
        feed = self._make(plan, seed)
        self.refused = False
        self._latest = weakref.ref(feed)
        if self._keep:
            feed.is_current()  # from now on
        return feed

    @property
    def latest(self) -> Feed | None:
        """The workers that were made last, if they are still there."""
        return self._latest() if self._latest is not None else None

    def give_back(self, feed: Feed, plan: Plan) -> None:
        """An epoch is over, and nothing is left in the hands of its workers."""
        if not self._keep or self._kept is not None:
            feed.close()
            return
        feed.pause()
        self._kept = (plan.backend, plan.workers), feed

    def __del__(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
