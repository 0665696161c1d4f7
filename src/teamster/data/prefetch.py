# SPDX-License-Identifier: BSD-3-Clause
"""The iterator of a loader: batches are begun some ahead, and given in the order of the sampler.

::

    sampler --(in the consumer's thread)--> indices --> feed.begin --> open batches, oldest first
                                                                            |
    consumer <-- the oldest; with in_order=False the first that is ready ---+
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter, perf_counter_ns
from typing import Any, NamedTuple

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from teamster.data.bounds import InFlight
from teamster.data.failures import Tally
from teamster.data.feeding import Feed, Feeds, Inline, NotInTime, OpenBatch, made_of
from teamster.data.fetch import NOTHING, Fetch, Made
from teamster.data.loader_report import LoaderClock
from teamster.data.order import batches_of
from teamster.data.sampling import Seed
from teamster.data.state import Progress, as_captured, capture, origins_of
from teamster.data.transfer import moved, pinning, transfer_of
from teamster.data.tuning import Tuner
from teamster.errors import first_line
from teamster.spine.plan.plan import Plan
from teamster.spine.trace import spans
from teamster.spine.trace.ring import USER, WAIT
from teamster.spine.workers.seeds import kept_random_state, task_seed

_NO_MORE = object()
_GLANCE_S = 0.002  # at the oldest batch, where any may come first


class Records(NamedTuple):
    """What a loader keeps of all its epochs.

    Attributes:
        clock: times of the consumer.
        tally: counts samples that could not be read.
        bound: of what is open.
    """

    clock: LoaderClock
    tally: Tally
    bound: InFlight


class BatchIterator(_BaseDataLoaderIter):  # type: ignore[misc]  # torch is not followed
    """One epoch of a loader with a map-style dataset.

    Args:
        loader: a `teamster.data.DataLoader`.
        fetch: of its dataset.
        feeds: has the workers.
        tuner: decides which; None where that was asked for.
        plan: what was asked for.
        records: of the loader.
        resume: where to go on; None for the beginning.
    """

    def __init__(
        self,
        loader: Any,
        fetch: Fetch,
        feeds: Feeds,
        tuner: Tuner | None,
        plan: Plan,
        records: Records,
        resume: dict[str, Any] | None = None,
    ) -> None:
        self._feed: Feed = Inline(fetch)
        self._coming: Feed | None = None  # chosen, and not up yet
        self._open: deque[tuple[int, OpenBatch]] = deque()
        self._fetch = fetch
        self._feeds = feeds
        self._plan = plan
        self._tuner = tuner
        self._clock, self._tally, self._bound = records
        self._in_order = loader.in_order
        self._transfer = transfer_of(loader)
        self._pipelined = 0
        self._resets = 0
        self._origins = origins_of(loader)
        with nullcontext() if resume is None else kept_random_state():
            super().__init__(loader)
            self._begin_order()
        self._move = self._transfer or pinning(self._pin_memory, self._pin_memory_device)
        self._begin_epoch(loader, self._base_seed, resume)
        self._change(tuner.plan if tuner is not None else plan)
        self._fill_unless_probing()

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        self._open.clear()
        self._resets += 1
        resume = loader.take_resume()
        super()._reset(loader, first_iter)
        self._begin_order()
        self._begin_epoch(loader, task_seed(self._base_seed, self._resets) >> 1, resume)
        self._fill_unless_probing()

    def _begin_epoch(self, loader: Any, base: int, resume: dict[str, Any] | None) -> None:
        """Have the order of the epoch drawn, and pass over what was given before."""
        self._clock.begin_epoch()
        if self._tuner is not None:
            self._tuner.begin_epoch()
        begun = resume is not None and resume["given"] is not None
        self.base = resume["base"] if resume is not None and begun else base
        self.progress = Progress(*resume["given"]) if resume is not None and begun else Progress()
        self.is_over = False
        self._position = self._latest = 0  # of the next one to be drawn, and of the latest given
        self._is_drawn = False  # all of it
        self._drawn: Any = None  # where an epoch is gone on from: what the order begins with
        self._begin: dict[str, Any] | None = None  # the generators before the order was drawn
        if resume is None:
            return
        self._begin = begin = resume["begin"]
        with as_captured(loader, begin):
            self._draw_anew(loader, begin, begun=begun)
            while self._position <= self.progress.first and self._drawn is not _NO_MORE:
                self._drawn = self._draw()

    @property
    def begin(self) -> dict[str, Any]:
        """What decides the order of this epoch."""
        if self._begin is None:
            return {**capture(self._origins), "drawn": False}
        return self._begin

    def origin(self) -> dict[str, Any]:
        """What decides the order and the random numbers of this epoch."""
        return {"begin": self.begin, "base": self.base}

    def _draw_anew(self, loader: Any, begin: dict[str, Any], *, begun: bool) -> None:
        """The order that was drawn then, by the same steps."""
        super()._reset(loader)  # an iterator of the sampler anew
        self._begin_order()
        if begin.get("drawn", True):
            drawn = torch.empty((), dtype=torch.int64).random_(generator=loader.generator).item()
            self.base = self.base if begun else drawn

    # --- the order --------------------------------------------------------------------------------

    def _begin_order(self) -> None:
        """Have the same order faster, where that is possible."""
        self._as_tensors = batches_of(self._index_sampler) if self._fetch.selects else None

    def _draw(self) -> Any:
        """The indices of one batch more, in the consumer's thread."""
        if self._begin is None:
            self._begin = self.begin
        began = perf_counter_ns()
        try:
            tensors = self._as_tensors
            indices = self._next_index() if tensors is None else next(tensors)
        except StopIteration:
            return _NO_MORE
        spans.note(spans.current_ring(), USER, "draw indices", began, self._position)
        self._position += 1
        return indices if self._fetch.takes(indices) else list(indices)

    def _next_batch(self) -> tuple[Seed, Any] | None:
        """Place and indices of the next batch that was not given yet.

        It is drawn when it is begun, and not before: a sampler may follow what the consumer does.
        """
        while True:
            indices, self._drawn = self._drawn, None
            if indices is None:
                indices = _NO_MORE if self._is_drawn else self._draw()
            if indices is _NO_MORE:
                self._is_drawn = True
                return None
            position = self._position - 1
            if position not in self.progress.beyond:
                return Seed(self.base, position), indices

    # --- workers ----------------------------------------------------------------------------------

    @property
    def _probing(self) -> bool:
        return self._tuner is not None and self._tuner.probing

    def _change(self, plan: Plan) -> None:
        """Have other workers; what the former ones have begun must have been taken.

        Where these were chosen, and take a while to start, the consumer goes on itself until then.
        """
        self._feed.close()
        self._feed = Inline(self._fetch)
        try:
            feed = self._feeds.take(plan, self._base_seed)
            self._plan = plan
            if self._tuner is not None and not feed.is_up:
                self._coming = feed
            else:
                self._feed = feed
        except Exception as error:
            if self._tuner is None:
                raise
            self._refuse(self._tuner, plan, error)
        self._pipelined = self._feed.warm_up

    def _refuse(self, tuner: Tuner, plan: Plan, error: Exception) -> None:
        """Such workers cannot have the dataset: have others."""
        tuner.refuse(plan.backend, f"they cannot have the dataset: {first_line(error)}")
        if tuner.plan.backend != plan.backend:
            self._change(tuner.plan)

    def _have_those_that_came(self, tuner: Tuner) -> None:
        """What was chosen, and started meanwhile, takes over from the consumer."""
        coming = self._coming
        try:
            if coming is None or not coming.is_up:
                return
        except Exception as error:
            self._coming = None
            assert coming is not None
            coming.close()
            self._refuse(tuner, self._plan, error)
            return
        self._coming, self._feed = None, coming
        self._pipelined = coming.warm_up
        tuner.begin_window(self._pipelined)

    def _fill_unless_probing(self) -> None:
        if not self._probing:
            self._fill()

    def _fill(self, least: int = 0) -> None:
        """Begin batches: as many as may be open, and so many at least."""
        if self._bound.is_known or not self._fetch.by_rows:
            most = self._bound.of(self._feed.ahead)
        else:  # all workers fill the first one; what it takes is not known yet
            most = min(self._feed.ahead, 2)
        while len(self._open) < max(least, most) and (batch := self._next_batch()) is not None:
            seed, indices = batch
            self._open.append((seed.batch, self._feed.begin(indices, seed)))

    # --- batches ----------------------------------------------------------------------------------

    def __next__(self) -> Any:
        if torch.autograd._profiler_enabled():  # a mark for it takes longer than a small batch
            return super().__next__()
        batch = self._next_data()
        self._num_yielded += 1
        return batch

    def _next_data(self) -> Any:
        self._clock.begin()
        began = perf_counter_ns()
        while True:
            made = self._measured() if self._probing else self._taken()
            self._tally.add(made.failures, made.samples)
            if made.value is not NOTHING:  # a batch of which no sample could be read
                break
        batch = made.value
        self._bound.learn(batch)
        if self._move is not None:
            batch = moved(batch, self._move, self._clock, self._latest)
        self._clock.end(made.samples)
        spans.note(spans.current_ring(), WAIT, "wait for a batch", began, self._latest)
        return batch

    def _measured(self) -> Made:
        tuner = self._tuner
        assert tuner is not None
        made = self._made_here(tuner.measure)
        if tuner.delivered(0):
            self._change(tuner.plan)
            self._fill()
        return made

    def _taken(self) -> Made:
        if self._tuner is not None:
            self._have_those_that_came(self._tuner)
        asked_s = perf_counter()
        if self._open or self._feed.ahead:
            made = self._waited_for()
            self._feed.waited(perf_counter() - asked_s)
        else:
            made = self._made_here()
        if (
            self._coming is None
            and self._tuner is not None
            and self._tuner.delivered(self._pipelined, perf_counter() - asked_s)
        ):
            self._drain()
            self._change(self._tuner.plan)
        if self._feed.ahead:
            self._fill()
        return made

    def _made_here(self, measure: Callable[[Fetch, Any, Seed], Made] | None = None) -> Made:
        """The next batch, where nobody else makes any."""
        batch = self._next_batch()
        if batch is None:
            self._end()
            raise StopIteration
        seed, indices = batch
        self._latest = seed.batch
        make = self._fetch.whole if measure is None else partial(measure, self._fetch)
        try:
            made = make(indices, seed)
        except Exception:  # it is not asked for again, as it is after a Ctrl-C
            self.progress.note(seed.batch)
            raise
        self.progress.note(seed.batch)
        return made

    def _waited_for(self) -> Made:
        self._fill(least=1)
        if not self._open:
            self._end()
            raise StopIteration
        position, batch = _pick(self._open, self._in_order, self._timeout)
        self._latest = position
        try:
            made = batch.result(self._timeout or None)
        except Exception as error:  # it is not asked for again, as it is after a Ctrl-C
            self.progress.note(position)
            if isinstance(error, NotInTime):
                text = f"no batch came within timeout={self._timeout:g} s; {error}"
                raise RuntimeError(text) from error
            raise
        self.progress.note(position)
        return made

    def _drain(self) -> None:
        """Batches of the former workers are waited for, and given next."""
        patience = self._timeout or None
        self._open = deque(
            (position, made_of(partial(each.result, patience))) for position, each in self._open
        )

    def _end(self) -> None:
        """The epoch is over."""
        if self._transfer is not None:
            self._transfer.finish()
        self._feed.pause()
        if not self.is_over and not self._persistent_workers:
            feed, self._feed = self._coming or self._feed, Inline(self._fetch)
            self._coming = None
            self._feeds.give_back(feed, self._plan)
        self.is_over = True

    def close(self) -> None:
        """End the workers of this iterator."""
        self._open.clear()
        self._is_drawn = True
        self._close_feeds()

    def _close_feeds(self) -> None:
        if self._transfer is not None:
            self._transfer.finish()
        coming, self._coming = self._coming, None
        for feed in (self._feed, coming):
            if feed is not None:
                feed.close()

    def __del__(self) -> None:
        self._close_feeds()


def _pick(
    batches: deque[tuple[int, OpenBatch]], in_order: bool, timeout: float
) -> tuple[int, OpenBatch]:
    """The oldest batch; of those that may come in any order the first that is there."""
    until = perf_counter() + (timeout or float("inf"))
    while not in_order:
        for each in batches:
            if each[1].ready:
                batches.remove(each)
                return each
        if perf_counter() > until:
            break
        batches[0][1].wait(_GLANCE_S)
    return batches.popleft()
