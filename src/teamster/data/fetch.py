# SPDX-License-Identifier: BSD-3-Clause
"""What is done for a batch: samples of its rows are read, and collated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Any

import torch
from torch.utils.data._utils.collate import default_collate

from teamster.data.failures import Failure, OnError, describe, note
from teamster.data.sampling import SampleSeeds, Seed
from teamster.data.vectorised import selection
from teamster.data.worker_info import as_no_worker
from teamster.spine.trace import spans
from teamster.spine.trace.ring import USER


class _Nothing:
    def __reduce__(self) -> str:
        return "NOTHING"  # the very one, in another process, too


NOTHING: Any = _Nothing()
"""In place of a batch of which no sample could be read."""

_BEHIND = 1 << 40  # a row behind all others: the random numbers of `collate`
_REPLACEMENTS = 100  # samples behind a bad one that are tried in its place


@dataclass(slots=True)
class Made:
    """What was made for a batch, or for a part of it.

    Attributes:
        value: samples, or what was made of them; `NOTHING` where none was left.
        samples: how many were asked for.
        failures: those of them that could not be read.
        read_s: seconds for reading them.
        cpu_s: of processor time, in that.
    """

    value: Any
    samples: int
    failures: list[Failure] = field(default_factory=list)
    read_s: float = 0.0
    cpu_s: float = 0.0


def join(parts: Iterable[Made]) -> Made:
    """Samples that were read apart, in this order.

    Example:
        >>> join([Made([1], 2), Made([3, 4], 2)])
        Made(value=[1, 3, 4], samples=4, failures=[], read_s=0.0, cpu_s=0.0)
    """
    joined = Made([], 0)
    for part in parts:
        joined.value += part.value
        joined.samples += part.samples
        joined.failures += part.failures
    return joined


class Fetch:
    """Reads a map-style dataset.

    Args:
        dataset: has samples by their indices.
        collate: makes a batch of a list of samples; of a single sample where `batched` is not set.
        batched: whether batches are asked for by lists of indices.
        on_error: what becomes of a sample that cannot be read.
        seeded: whether each sample has a seed of its own.
        watched: whether processes tell what they are reading, when they are asked.

    Attributes:
        selects: whether a whole batch is one selection of rows.
        by_rows: whether rows of one batch may be read apart from each other.
        mergeable: whether parts of a batch may be collated apart, too: `collate` is torch's own.

    Example:
        >>> Fetch([1.0, 2.0, 4.0], default_collate, True).whole([0, 2], Seed(0)).value.tolist()
        [1.0, 4.0]
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[Any], Any],
        batched: bool,
        on_error: OnError = "raise",
        *,
        seeded: bool = True,
        watched: bool = False,
    ) -> None:
        self.watched = watched
        self.dataset = dataset
        self._collate = collate
        self._batched = batched
        self._on_error = on_error
        usual = collate is default_collate
        self._select = selection(dataset) if batched and usual else None
        self._many = getattr(dataset, "__getitems__", None)
        self.selects = self._select is not None
        self.by_rows = batched and not self._many and not self.selects
        self.mergeable = self.by_rows and usual
        self._seeds = SampleSeeds() if seeded else None
        self._batch_seeds = SampleSeeds() if seeded and not usual else None
        # Indices, and what was read of them so far, by the thread that reads
        self.reading: dict[int, tuple[Sequence[Any], Sequence[Any]]] = {}

    def __reduce__(self) -> Any:
        made_with = self.dataset, self._collate, self._batched, self._on_error
        seeded = self._seeds is not None
        return partial(Fetch, *made_with, seeded=seeded, watched=self.watched), ()

    @property
    def is_seeded(self) -> bool:
        """Whether samples draw random numbers, as far as the first ones have shown."""
        return self._seeds is not None and self._seeds.active

    @property
    def draws(self) -> str:
        """The generators of all threads that samples draw from; empty where none does."""
        seeds = (self._seeds, self._batch_seeds)
        drawn = [each.drawn for each in seeds if each is not None]
        return ", ".join(sorted(set().union(*drawn)))

    def now_read(self) -> list[tuple[int, Any]]:
        """Threads that read, each with the index of its sample."""
        reading = [(thread, *each) for thread, each in list(self.reading.items())]
        return [
            (thread, each[len(read)]) for thread, each, read in reading if len(read) < len(each)
        ]

    def takes(self, indices: Any) -> bool:
        """Whether indices can stay as the sampler gives them.

        Where samples are read one by one, a batch of them may be anything that can be iterated.
        """
        return (
            not self._batched
            or self._many is not None
            or isinstance(indices, (list, tuple))
            or (self.selects and isinstance(indices, torch.Tensor))
        )

    def samples(self, indices: Sequence[Any], seed: Seed | None, batch: int = -1) -> Made:
        """Read samples.

        Args:
            indices: of the dataset.
            seed: of the first; None where nothing is seeded.
            batch: its place in the epoch, where the seed does not tell.

        Returns:
            A list of samples.
        """
        began = perf_counter_ns()
        made = self._read(indices, seed)
        _note("read samples", began, seed, batch)
        return made

    def _read(self, indices: Sequence[Any], seed: Seed | None) -> Made:
        seeds = self._seeds if seed is not None else None
        if self._on_error == "raise" and (seeds is None or not self.is_seeded):
            return self._plain_samples(indices)
        if seeds is None or seed is None:
            return self._samples(indices, lambda index, row: self._get(index))
        get, first = self._get, seed
        with seeds.kept():
            return self._samples(indices, lambda index, row: seeds.read(get, index, first.at(row)))

    def _plain_samples(self, indices: Sequence[Any]) -> Made:
        """The same, where no sample is seeded, and none is passed over: tiny ones are many."""
        values: list[Any] = []
        mine, dataset = threading.get_ident(), self.dataset
        self.reading[mine] = indices, values
        try:
            for index in indices:
                values.append(dataset[index])  # what is read is seen from outside
        except Exception as error:
            note(dataset, indices[len(values)], error)
            raise
        finally:
            self.reading.pop(mine, None)
        return Made(values, len(values))

    def _samples(self, indices: Sequence[Any], read: Callable[..., Any]) -> Made:
        made = Made([], len(indices))
        mine, reading = threading.get_ident(), self.reading
        for row, index in enumerate(indices):
            reading[mine] = (index,), ()
            try:
                made.value.append(read(index, row=row))
            except Exception as error:
                if not self._passed_over(index, error, made, partial(read, row=row)):
                    raise
            finally:
                reading.pop(mine, None)
        return made

    def _get(self, index: Any) -> Any:
        return self.dataset[index]

    def _passed_over(
        self, index: Any, error: Exception, made: Made, read: Callable[[Any], Any]
    ) -> bool:
        """Do what the policy says; `read` gives another sample."""
        if self._on_error == "raise":
            note(self.dataset, index, error)
            return False
        made.failures.append(describe(self.dataset, index, error))
        if self._on_error == "replace":
            made.value += self._replacement(index, read)
        elif callable(self._on_error):
            sample = self._on_error(index, error)
            made.value += [] if sample is None else [sample]
        return True

    def give_up(self, indices: Any, death: Exception) -> Made | None:
        """Rows that nobody can read: the process that tried has died, twice.

        Args:
            indices: of the rows.
            death: how it died.

        Returns:
            What is left of them; None where errors are not passed over.
        """
        rows = _listed(indices)
        if self._on_error == "raise" or callable(self._on_error):
            for index in rows:
                note(self.dataset, index, death)
            return None
        failures = [describe(self.dataset, index, death) for index in rows]
        return Made(NOTHING, len(rows), failures)

    def _replacement(self, index: Any, read: Callable[[Any], Any]) -> list[Any]:
        """The next sample that can be read; none where indices are no numbers."""
        count = len(self.dataset)
        for step in range(1, min(count, _REPLACEMENTS + 1)) if isinstance(index, int) else ():
            try:
                return [read((index + step) % count)]
            except Exception:
                continue
        return []

    def collate(self, made: Made, seed: Seed | None, batch: int = -1) -> Made:
        """Make a batch of samples; what `made` says of failures stays.

        Args:
            made: its value is a list of samples.
            seed: of the first, for what `collate` draws; None where nothing is seeded.
            batch: its place in the epoch, where the seed does not tell.

        Returns:
            The same, with the batch as its value.
        """
        samples, began = made.value, perf_counter_ns()
        if made.failures and not samples:
            made.value = NOTHING
        elif self._collate is default_collate:
            made.value = as_no_worker(default_collate, samples)
        elif self._batch_seeds is None or seed is None:
            made.value = self._collate(samples)
        else:
            with self._batch_seeds.kept():
                made.value = self._batch_seeds.read(self._collate, samples, seed.at(_BEHIND))
        _note("collate", began, seed, batch)
        return made

    def finish(self, looked: Made, indices: Sequence[Any], seed: Seed | None) -> Made:
        """Make a batch of which the first samples were read already.

        Args:
            looked: those.
            indices: of the batch.
            seed: of its first sample; None where nothing is seeded.

        Returns:
            The batch.
        """
        begun = looked.samples
        rest = self.samples(indices[begun:], seed and seed.at(begun))
        return self.collate(join([looked, rest]), seed)

    def whole(self, indices: Any, seed: Seed | None) -> Made:
        """Make a batch.

        Args:
            indices: of a batch; a single one where there are no batches.
            seed: of its first sample; None where nothing is seeded.

        Returns:
            What `collate` has made of its samples.
        """
        if self._select is not None and len(indices):
            began, batch = perf_counter_ns(), self._select(indices)
            _note("read and collate", began, seed)
            return Made(batch, len(indices))
        if not self._batched:
            made = self.samples([indices], seed)
            made.value = made.value[0] if made.value else NOTHING
            return made if made.value is NOTHING else self.collate(made, seed)
        if self._many is None:
            return self.collate(self.samples(indices, seed), seed)
        return self.collate(self._at_once(indices, seed), seed)

    def _at_once(self, indices: Any, seed: Seed | None) -> Made:
        """By `__getitems__`; where that fails and errors are passed over, one by one."""
        many, seeds = self._many, self._seeds
        assert many is not None
        count = len(indices) if hasattr(indices, "__len__") else 0
        try:
            if seeds is None or seed is None:
                return Made(many(indices), count)
            with seeds.kept():
                return Made(seeds.read(many, indices, seed), count)
        except Exception:
            if self._on_error == "raise":
                raise
        return self.samples(indices, seed)


def _note(name: str, began_ns: int, seed: Seed | None, batch: int = -1) -> None:
    """Write a span, with the place of its batch."""
    number = batch if seed is None else seed.batch
    spans.note(spans.current_ring(), USER, name, began_ns, number)


def _listed(indices: Any) -> Sequence[Any]:
    return indices if isinstance(indices, (list, tuple)) else (indices,)
