# SPDX-License-Identifier: BSD-3-Clause
"""`DataLoader`: torch's, with workers that are chosen by measuring."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from torch.utils import data
from torch.utils.data.dataloader import _DatasetKind

from teamster.data import arguments
from teamster.data.arguments import KINDS, AutoCount, Kind
from teamster.data.bounds import InFlight
from teamster.data.failures import OnError, Tally, check_policy
from teamster.data.feeding import Feeds
from teamster.data.fetch import Fetch
from teamster.data.forked import own_or_torchs
from teamster.data.iterating import stream_of
from teamster.data.loader_report import LoaderClock, LoaderReport
from teamster.data.prefetch import BatchIterator, Records
from teamster.data.processes import warm_up
from teamster.data.sharing.joining import SharedIterator, Sharing, shared_part
from teamster.data.staffing import feeder
from teamster.data.state import check_state, epoch_state
from teamster.data.streaming import SampleStream, check_stream_state, stream_state
from teamster.data.transfer import as_named, can_pin
from teamster.data.tuning import Tuner
from teamster.errors import UsageError
from teamster.spine.plan.plan import Plan
from teamster.tensors.devices import DeviceLike

_NOT_PICKLED = (
    "_made_with", "_fetch", "_feeds", "_resume", "_latest", "_clock", "_bound", "_tally", "_tuner",
    "_sharing",
)  # fmt: skip


Batch = TypeVar("Batch", covariant=True)


class DataLoader(data.DataLoader[Batch]):  # type: ignore[misc]  # torch is not followed
    """Loads batches of a dataset, with as many workers of such a kind as pay.

    A drop-in for `torch.utils.data.DataLoader`: every argument means what it means there.

    Args:
        dataset: map-style or iterable. Iterable ones are read by the consumer with "auto", since
            each process would have to know which part is its own. With workers, `drop_last` drops
            less than a batch of all, and not of each worker.
        batch_size, shuffle, sampler, batch_sampler: as in torch.
        num_workers: how many; 0 for none: the consumer makes each batch itself. "auto" for as many
            as the first batches show to pay.
        collate_fn, pin_memory, drop_last, timeout, worker_init_fn: as in torch.
        multiprocessing_context, generator: as in torch.
        prefetch_factor, persistent_workers, pin_memory_device, in_order: as in torch.
        workers: "thread" or "process"; "hybrid" for processes with four threads each, of so many
            workers together; "inline" for none; "auto" measures. With a number of workers, "auto"
            means processes, as in torch.
        seeding: "sample": each sample has random numbers of its own, from epoch, batch and row, so
            that batches are the same with any workers. "torch": those of the worker, as torch has
            them; batches then are torch's with the same number of processes.
        on_error: "raise" the error of a sample that cannot be read, with its index; "skip" the
            sample; "replace" it by the next one that can be read; or a function of the index and
            the error that returns a sample, or None for none.
        max_errors: how many samples may be passed over: a count, or a share of those read from 0.0
            to 1.0 (of 100 at least); None for any number.
        prefetch_bytes: most memory that batches ahead of the consumer may take, in bytes; two are
            always allowed. "auto" for a quarter of what is free to take.
        share: a name under which several programs of this user share one loader of the same
            dataset: one prepares the batches, and all get them.
        share_late: when a program that starts later gets its first batch: with the "next epoch" of
            the others, or "now", from where they are.
        device: where batches are wanted, as "cuda"; copies go through pinned memory, beside what
            the device computes. None for where they are.

    Raises:
        UsageError: an argument of ours makes no sense.
        ValueError: as in torch.

    Example:
        >>> loader = DataLoader([1.0, 2.0, 3.0], batch_size=2, workers="inline")
        >>> [batch.tolist() for batch in loader]
        [[1.0, 2.0], [3.0]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int | Literal["auto"] = "auto",
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], object] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        workers: Kind = "auto",
        seeding: Literal["sample", "torch"] = "sample",
        on_error: OnError = "raise",
        max_errors: float | None = None,
        prefetch_bytes: int | Literal["auto"] = "auto",
        share: str | None = None,
        share_late: Literal["next epoch", "now"] = "next epoch",
        device: DeviceLike | None = None,
    ) -> None:
        iterable = isinstance(dataset, data.IterableDataset)
        arguments.check(workers, seeding, prefetch_bytes, iterable=iterable)
        arguments.check_share(share, share_late, iterable=iterable)
        check_policy(on_error, max_errors, iterable=iterable)
        self.workers = workers
        self.seeding = seeding
        self.on_error = on_error
        self.max_errors = max_errors
        self.prefetch_bytes = prefetch_bytes
        self.share = share
        self.share_late = share_late
        self.device = None if device is None else as_named(device)
        self._begin_afresh()
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            sampler,
            batch_sampler,
            arguments.count_of(num_workers, workers, iterable=iterable),
            collate_fn,
            pin_memory,
            drop_last,
            timeout,
            worker_init_fn,
            multiprocessing_context,
            generator,
            prefetch_factor=prefetch_factor,
            # Those that read for others stay in any case
            persistent_workers=persistent_workers and share is None,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )
        self._decide()
        processes = self._plan.backend in ("process", "hybrid")
        forked = processes and multiprocessing_context is None
        if forked and self.num_workers and not self._is_torchs():
            warm_up()

    def _begin_afresh(self) -> None:
        """Know nothing, and have no workers yet."""
        self._made_with: tuple[Any, ...] = ()  # what the next two are for
        self._fetch: Fetch
        self._feeds: Feeds
        self._resume: dict[str, Any] | None = None
        self._latest: weakref.ref[Any] | None = None
        self._clock = LoaderClock()
        self._bound = InFlight(self.prefetch_bytes)
        self._tally = Tally(self.max_errors)
        self._decided_for: tuple[Any, ...] = ()
        self._torchs = ""  # why torch's own workers read
        self._sharing: Sharing | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the workers, and what was measured."""
        own = dict(vars(self), _iterator=None)
        return {name: value for name, value in own.items() if name not in _NOT_PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_afresh()
        self._decide()

    def _decide(self) -> None:
        """Which workers: what was asked for, or what a tuner finds out."""
        asked = self.workers, type(self.num_workers), int(self.num_workers)
        if self._decided_for == asked:
            return
        self._decided_for, self._made_with = asked, ()
        auto = self.workers == "auto" and isinstance(self.num_workers, AutoCount)
        # What is read for others is read beside this program's loop, whose time says nothing of it
        auto = auto and self.share is None
        self._tuner = Tuner(arguments.cores()) if auto else None
        kind = "serial" if not self.num_workers else KINDS.get(self.workers, "process")
        self._plan = Plan(kind, max(1, self.num_workers), "asked for")

    def _get_iterator(self) -> Any:
        if self._dataset_kind == _DatasetKind.Iterable:
            return self._stream()
        if self._is_torchs():
            arguments.check_torchs(self)
            return super()._get_iterator()
        self._decide()
        settings = self.dataset, self.collate_fn, self.on_error, self.worker_init_fn
        if not _are_same(self._made_with, settings):  # they may be set between epochs
            self._made_with = settings
            self._fetch = self._fetch_of()
            self._feeds = Feeds(
                feeder(self._fetch, *self._how()),
                keep=self._tuner is not None or self.share is not None,
            )
        if self.share is not None and self._resume is None:
            return self._shared()
        return self._own_iterator() if self.workers != "auto" or self._tuner else self._as_asked()

    def _stream(self) -> SampleStream:
        made = SampleStream(self, stream_of, self._clock, self.take_resume())
        self._latest = weakref.ref(made)
        return made

    def _own_iterator(self) -> BatchIterator:
        records = Records(self._clock, self._tally, self._bound)
        made = self._batches(records, self.take_resume())
        self._latest = weakref.ref(made)
        return made

    def _batches(self, records: Records, resume: dict[str, Any] | None) -> BatchIterator:
        plan = self._tuner, self._plan
        return BatchIterator(self, self._fetch, self._feeds, *plan, records, resume)

    def _shared(self) -> SharedIterator:
        """Batches that this program, or another one, prepares for all."""
        self._sharing = self._sharing or shared_part(self, self._bound.of)
        shared = SharedIterator(self, self._sharing, self._clock)
        self._latest = weakref.ref(shared)
        return shared

    def for_all(self, resume: dict[str, Any] | None) -> BatchIterator:
        """Batches for all programs that share this loader; torch's arguments are those of this one.

        Args:
            resume: where to go on; None for another epoch.

        Returns:
            An iterator.

        Example:
            >>> loader = DataLoader([1, 2], 2, workers="inline")
            >>> _ = iter(loader)
            >>> [batch.tolist() for batch in loader.for_all(None)]
            [[1, 2]]
        """
        # In order, in memory that can be shared, and with workers that stay in any case
        instead = dict.fromkeys(("pin_memory", "persistent_workers"), False)
        records = Records(LoaderClock(), self._tally, self._bound)
        altered = arguments.altered(self, in_order=True, device=None, **instead)
        made: BatchIterator = altered._batches(records, resume)
        return made

    def _as_asked(self) -> Any:
        """Processes, as with torch; its own where a dataset can only be had by a fork."""
        if self._torchs:
            return super()._get_iterator()
        made, self._torchs = own_or_torchs(self, self._own_iterator, self._may_be_torchs)
        return made

    def _may_be_torchs(self) -> bool:
        """Whether torch's workers can do what is asked for, where ours have been refused."""
        plain = self.on_error == "raise" and self._resume is None
        return self._feeds.refused and plain and bool(self.num_workers)

    def _fetch_of(self) -> Fetch:
        return Fetch(
            self.dataset,
            self.collate_fn,
            self._auto_collation,
            self.on_error,
            seeded=self.seeding == "sample",
            watched=bool(self.timeout),
        )

    def _is_torchs(self) -> bool:
        """Whether batches depend on which process makes them: then torch's own have to."""
        asked = self._plan.backend == "process" and self._tuner is None
        return self.seeding == "torch" and asked

    def check_worker_number_rationality(self) -> None:
        """Warn, as torch does, of more processes than cores; threads may be more.

        Example:
            >>> DataLoader([1], num_workers=64, workers="thread").num_workers
            64
        """
        if self.workers not in ("thread", "hybrid"):
            super().check_worker_number_rationality()

    def _how(self) -> tuple[Any, ...]:
        """What workers are made with, beside what they read."""
        factor, context = self.prefetch_factor, self.multiprocessing_context
        return self.worker_init_fn, factor, context, can_pin(self)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, to go on from there later, in another process, too.

        Returns:
            A state for `load_state_dict`; it pickles, and `torch.save` takes it.

        Example:
            >>> loader = DataLoader([1, 2, 3, 4], batch_size=2, workers="inline")
            >>> batches = iter(loader)
            >>> next(batches).tolist()
            [1, 2]
            >>> again = DataLoader([1, 2, 3, 4], batch_size=2, workers="inline")
            >>> again.load_state_dict(loader.state_dict())
            >>> [batch.tolist() for batch in again]
            [[3, 4]]
        """
        self._check_state()
        latest = self._latest() if self._latest is not None else None
        if self._resume is not None:  # it was not gone on from yet
            return dict(self._resume)
        if self._dataset_kind == _DatasetKind.Iterable:
            return stream_state(self, latest)
        return epoch_state(self, latest)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next iterator go on where another was; nothing that was given is read again.

        Args:
            state: of `state_dict`. Kind and number of workers may differ.

        Raises:
            UsageError: it is of another dataset, or no state.
        """
        self._check_state()
        if self._dataset_kind == _DatasetKind.Iterable:
            check_stream_state(state, self.num_workers)
            self.__dict__.update(_iterator=None)  # its workers are in the middle of something else
        else:
            check_state(state, self.dataset)
        self._resume = dict(state)

    def _check_state(self) -> None:
        why = self._torchs
        if self._dataset_kind == _DatasetKind.Map and self._is_torchs():
            why = "seeding='torch' gives batches the random numbers of torch's processes"
        if why:
            raise UsageError(f"torch's own workers read, which have no state: {why}")

    def take_resume(self) -> dict[str, Any] | None:
        """What an iterator begins with; once.

        Example:
            >>> DataLoader([1]).take_resume() is None
            True
        """
        resume, self._resume = self._resume, None
        return resume

    def explain(self) -> Plan:
        """Which workers are used, and why.

        Returns:
            The plan; `print` shows what was measured.

        Example:
            >>> print(DataLoader([1, 2], workers="thread", num_workers=2).explain())
            thread(2): asked for
        """
        return self._tuner.plan if self._tuner is not None else self._plan

    def report(self) -> LoaderReport:
        """What the loader has done so far.

        Returns:
            Counts and times.

        Example:
            >>> loader = DataLoader([1, 2], workers="inline")
            >>> _ = list(loader)
            >>> loader.report().batches
            2
        """
        stream = self._latest() if self._latest is not None else None  # an iterable dataset's
        feed = self._feeds.latest if self._made_with else stream
        memory_bytes = feed.memory_bytes() if feed is not None else 0
        return self._clock.read(self.explain(), self._tally.failures, memory_bytes)


def _are_same(these: tuple[Any, ...], those: tuple[Any, ...]) -> bool:
    return len(these) == len(those) and all(map(operator.is_, these, those))
