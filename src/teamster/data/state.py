# SPDX-License-Identifier: BSD-3-Clause
"""Where a loader is in its epoch, to stop there and go on later.

::

    state = the generators as they were when the epoch began + how many of its batches were given
    go on = draw the same order again, pass over what was given without reading it

What workers there are does not matter: a sample's random numbers come from its own seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from teamster.errors import UsageError
from teamster.spine.workers.seeds import generator_states, kept_random_state

VERSION = 1  # of the form of a state: one of another form is refused


def generators_of(loader: Any) -> dict[str, torch.Generator]:
    """Generators that belong to the loader and its samplers, by where they are.

    Example:
        >>> generator = torch.Generator()
        >>> loader = torch.utils.data.DataLoader([1], shuffle=True, generator=generator)
        >>> sorted(generators_of(loader))
        ['loader.generator', 'sampler.generator']
    """
    holders = {
        "loader": loader,
        "sampler": loader.sampler,
        "batch_sampler": loader.batch_sampler,
        "batch_sampler.sampler": getattr(loader.batch_sampler, "sampler", None),
    }
    seen: set[int] = set()
    found = {}
    for holder, owner in holders.items():
        if owner is None or id(owner) in seen:
            continue
        seen.add(id(owner))
        for name, value in vars(owner).items() if hasattr(owner, "__dict__") else ():
            if isinstance(value, torch.Generator):
                found[f"{holder}.{name}"] = value
    return found


def origins_of(loader: Any) -> SimpleNamespace:
    """What of a loader decides its order, without the loader, which may be gone by then."""
    own = {
        name: value for name, value in vars(loader).items() if isinstance(value, torch.Generator)
    }
    return SimpleNamespace(**own, sampler=loader.sampler, batch_sampler=loader.batch_sampler)


def capture(loader: Any) -> dict[str, Any]:
    """What decides the order of an epoch that begins now.

    Args:
        loader: or its `origins_of`.
    """
    return {
        **generator_states(),
        "own": {name: each.get_state() for name, each in generators_of(loader).items()},
        "sampler_epoch": getattr(loader.sampler, "epoch", None),
    }


@contextmanager
def as_captured(loader: Any, begin: dict[str, Any]) -> Iterator[None]:
    """In here all generators are as they were; afterwards the program's own are as before."""
    with kept_random_state():
        torch.set_rng_state(begin["torch"])
        random.setstate(begin["random"])
        if "numpy.random" in begin:
            import numpy

            numpy.random.set_state(begin["numpy.random"])
        own = generators_of(loader)
        for name, state in begin["own"].items():
            if name in own:
                own[name].set_state(state)
        if begin["sampler_epoch"] is not None and hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(begin["sampler_epoch"])
        yield


def _length_of(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def check_state(state: Any, dataset: Any) -> None:
    """Refuse what is no state of such a loader.

    Raises:
        UsageError: it says what is wrong.
    """
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise UsageError("this is no state of a teamster.data.DataLoader (from state_dict())")
    length = _length_of(dataset)
    if state["length"] != length:
        raise UsageError(
            f"the state is of a dataset with {state['length']} samples, this one has {length}"
        )


def epoch_state(loader: Any, latest: Any) -> dict[str, Any]:
    """Where a loader is that has begun `latest`, or nothing yet."""
    state = {"version": VERSION, "length": _length_of(loader.dataset)}
    origin = {} if latest is None or latest.is_over else latest.origin()
    if not origin:
        return {**state, "begin": capture(loader), "given": None}
    given = latest.progress.first, sorted(latest.progress.beyond)
    return {**state, **origin, "given": given}


class Progress:
    """Which batches of an epoch the consumer has had.

    Example:
        >>> progress = Progress()
        >>> for position in (0, 2, 3):
        ...     progress.note(position)
        >>> progress.first, sorted(progress.beyond)
        (1, [2, 3])
    """

    def __init__(self, first: int = 0, beyond: Any = ()) -> None:
        self.first = first  # all before this one
        self.beyond = set(beyond)

    def note(self, position: int) -> None:
        """The batch at this position was given."""
        if position == self.first and not self.beyond:
            self.first += 1
            return
        self.beyond.add(position)
        while self.first in self.beyond:
            self.beyond.remove(self.first)
            self.first += 1
