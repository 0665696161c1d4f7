# SPDX-License-Identifier: BSD-3-Clause
"""What workers know of the functions that were submitted, and when they may forget it.

::

    function that is imported by name, --> travels with its call; no worker keeps it
      partial, method, object
    function that travels as code      --> a definition: sent once a worker, kept while calls are
      (lambdas, ``__main__``)              open, and after that as long as a small cache has room

Whether a function is still what it was is seen from what it names: as long as all of that is code,
modules and plain values, the same objects mean the same function. What names lists, dicts or
objects of the program is pickled anew for each call, and compared.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from teamster.kinds import KINDS
from teamster.spine.workers.calls import no_function
from teamster.spine.workers.context_vars import carry
from teamster.spine.workers.job import CallOptions, Job
from teamster.spine.workers.library_state import take, take_of_thread
from teamster.spine.workers.team import Team

_MOST_KEPT = 64  # functions that may come again; their bytes are bounded, too
_MOST_KEPT_BYTES = 8 << 20  # of pickles, in this program and in every worker
_MOST_NAMES = 64  # looked at for one function: beyond that, comparing pickles is no dearer
_PLAIN = (int, float, complex, bool, str, bytes, type(None))
_LASTING = (types.ModuleType, types.BuiltinFunctionType)


class Unsettled(Exception):
    """Whether the function is still the same cannot be seen from the objects that it names."""


@dataclass(slots=True, eq=False)
class SubmittedFunction:
    """A function that workers know, and how many calls of it are open."""

    job: Job
    key: Any
    nbytes: int = 0
    calls: int = 0
    kept: bool = True
    # The objects behind the key, which must not be replaced by others of their id
    names: Any = None


class Definitions:
    """Those of one team.

    Their lock is not the team's: functions are pickled under it, which is code of the user's.
    """

    def __init__(self, team: Team, terms: CallOptions) -> None:
        self._lock = threading.RLock()
        self._team = team
        self._terms = terms
        self._kept: OrderedDict[Any, SubmittedFunction] = OrderedDict()
        self._kept_bytes = 0
        # By chunk size
        self._shared: dict[int | None, tuple[contextvars.Context, Any, Any, Job]] = {}
        self._by_pickle = KINDS[team.backend.kind].by_pickle
        self._latest: Any = None  # of what the program has set, and the number of its changes
        self._version = 0

    def shared_job(self, context: contextvars.Context, chunksize: int | None) -> Job:
        """The job of all calls that bring their function along.

        It is the same as long as what the program has set around them is the same.
        """
        state = self._state()
        known = self._shared.get(chunksize)
        if (
            known is not None
            and (known[1] is state or known[1] == state)
            and (known[0] == context or self._is_carried(context, known[2]))
        ):
            return known[3]
        job = self._job(no_function, chunksize)
        self._shared[chunksize] = context, state, self._carried(context), job
        return job

    def _is_carried(self, context: contextvars.Context, carried: Any) -> bool:
        return self._by_pickle and carried == self._carried(context)

    def _state(self) -> Any:
        """What the program has set in the interpreter and in libraries."""
        return take() if self._by_pickle else take_of_thread()

    def find(
        self, function: types.FunctionType, context: contextvars.Context, chunksize: int | None
    ) -> SubmittedFunction:
        """The definition of a function that travels as code, with one more open call.

        Raises:
            Exception: the function does not pickle.
        """
        state = take()
        if state is not self._latest:
            self._latest, self._version = state, self._version + 1
        carried = self._version, repr(self._carried(context))
        names: list[Any] = []
        try:
            key: Any = (chunksize, carried, *_identity(function, names, set()))
        except Unsettled:
            key = None
        with self._lock:
            definition = self._kept.get(key) if key is not None else None
            if definition is None:
                definition = self._make(function, key, (chunksize, carried), names)
            elif definition.kept:
                self._kept.move_to_end(definition.key)
            definition.calls += 1
            return definition

    def _make(
        self, function: types.FunctionType, key: Any, beside: Any, names: list[Any]
    ) -> SubmittedFunction:
        job = self._job(function, beside[0])
        parcel = job.spec.parcel
        key = key if key is not None else (parcel.data, *beside)
        if (known := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return known
        definition = SubmittedFunction(job, key, parcel.nbytes, names=names)
        definition.kept = not parcel.buffers and parcel.nbytes <= _MOST_KEPT_BYTES
        if definition.kept:
            self._kept[key] = definition
            self._kept_bytes += definition.nbytes
            while len(self._kept) > _MOST_KEPT or self._kept_bytes > _MOST_KEPT_BYTES:
                self._drop(self._kept.popitem(last=False)[1])
        return definition

    def _drop(self, definition: SubmittedFunction) -> None:
        definition.kept = False
        self._kept_bytes -= definition.nbytes
        if not definition.calls:
            self._team.dispatcher.finish(definition.job)

    def release(self, definition: SubmittedFunction) -> None:
        """A call of it is over."""
        with self._lock:
            definition.calls -= 1
            if not definition.calls and not definition.kept:
                self._team.dispatcher.finish(definition.job)

    def clear(self) -> None:
        """The team has given all of them up."""
        # Without the lock, since the team's is held
        self._kept, self._shared, self._kept_bytes = OrderedDict(), {}, 0

    def _carried(self, context: contextvars.Context) -> Any:
        """What of the context travels to a process; None where the context itself is used."""
        if not self._by_pickle:
            return None
        return carry(context) if len(context) else []

    def _job(self, function: Callable[..., Any], chunksize: int | None) -> Job:
        spec = self._team.dispatcher.define(
            function, "apply", one_by_one=self._terms.timeout is not None, low_latency=True
        )
        return Job(
            spec,
            replace(self._terms, chunksize=chunksize),
            on_values=_tell_nothing,
            on_error=_tell_nothing,
            on_failure=lambda error: self.clear(),
        )


def _tell_nothing(*_: object) -> None:
    """Batches of calls tell their futures themselves."""


def travels_as_code(function: Callable[..., Any]) -> bool:
    """Whether `function` is a plain function that another process cannot import by its name.

    Example:
        >>> import os.path
        >>> travels_as_code(os.path.join), travels_as_code(lambda: 1), travels_as_code(abs)
        (False, True, False)
    """
    if type(function) is not types.FunctionType:
        return False
    if function.__module__ == "__main__":
        return True
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is not function


def _identity(function: types.FunctionType, names: list[Any], seen: set[int]) -> Iterator[Any]:
    """What tells two states of a function apart: ids of code, plain values of what it names.

    The objects go to `names`.

    Raises:
        Unsettled: it names something that may change inside.
    """
    seen.add(id(function))
    names.append(function)
    yield id(function.__code__)
    names.append(function.__code__)
    if function.__dict__ or len(names) > _MOST_NAMES:
        raise Unsettled
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:
            raise Unsettled from None
        yield from _mark(content, names, seen)
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()):
        yield from _mark(default, names, seen)
    for code in _codes(function.__code__):
        for name in code.co_names:
            if name in function.__globals__:
                yield name
                yield from _mark(function.__globals__[name], names, seen)


def _mark(value: Any, names: list[Any], seen: set[int]) -> Iterator[Any]:
    kind = type(value)
    if kind in _PLAIN:
        yield kind, value
    elif kind is tuple:
        for each in value:
            yield from _mark(each, names, seen)
    elif kind is types.FunctionType and travels_as_code(value):
        if id(value) in seen:
            yield id(value)
        else:
            yield from _identity(value, names, seen)
    elif (
        isinstance(value, _LASTING)
        or kind is types.FunctionType
        or (kind is type and value.__module__ != "__main__")
    ):
        names.append(value)
        yield id(value)
    else:
        raise Unsettled


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
