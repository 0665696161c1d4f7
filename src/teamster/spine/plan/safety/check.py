# SPDX-License-Identifier: BSD-3-Clause
"""Whether a function means the same in another process.

It is asked of one item that runs here, before and after.

::

    before: what the function carries, the argument,
            the random generators                     --> fingerprints
    after:  the same again --> anything changed?      --> it stays here, and this is why
            the result, pickled and unpickled --> does it survive?

A function that changes a counter of its module works in threads, and would lose the change in a
process without a word.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from teamster.errors import first_line
from teamster.spine.plan.plan import Evidence
from teamster.spine.plan.safety.captures import Captures
from teamster.spine.plan.safety.fingerprint import Bound, TooLong, checksum, is_bound_to_thread
from teamster.spine.transport.parcel import Parcel
from teamster.spine.transport.pickled import pack, pack_by_reference, pack_by_value, unpack

# Results up to this size are compared after the journey; larger ones only make it
_COMPARE_BYTES = 1 << 20
_SHORT_S = 0.0002  # an item that takes this long is worth a look that takes longer
_SHORT_LOOK_S = 0.001  # at what the others carry
# What is made to be used by several threads
_FOR_THREADS = ("_thread", "threading", "multiprocessing.synchronize", "queue", "_queue")
_LOADING_S = 0.02  # to import cloudpickle


class SafetyCheck:
    """The check of one function, to be asked around one item after the other until `settled`.

    Attributes:
        stays: why the function must stay in this process; empty while nothing speaks against
            leaving.
        one_thread: why it must stay in this thread; empty while nothing speaks against others.
        alone: why no two threads may call it at a time; empty while nothing speaks against that.
        settled: whether the answer will not change any more.
        argument_bytes: pickled size of an argument; None before the first check.
        result_bytes: the same of a result.
        move_s: seconds that it took to pickle and unpickle both.

    Example:
        >>> counts = {"calls": 0}
        >>> def count(item):
        ...     counts["calls"] += 1
        >>> safety = SafetyCheck(count)
        >>> safety.begin((1,), 1.0)
        True
        >>> safety.end((1,), count(1))
        >>> safety.stays
        'the call changes `counts`, which it carries'
    """

    def __init__(self, function: Callable[..., Any], *, seeded: bool = False) -> None:
        self._function = function
        self._seeded = seeded  # then the random numbers are the job's affair
        self._before: dict[str, Any] = {}
        self._random: dict[str, int] = {}
        self._argument: Any = None
        self._deadline = self._seconds = 0.0
        self.stays = self.one_thread = self.alone = ""
        self.settled = False
        self.argument_bytes: int | None = None
        self.result_bytes: int | None = None
        self.move_s = 0.0

    def prints(self) -> dict[str, Any]:
        """The fingerprints of what the function carried when the answer was found.

        They are to be compared with those of a later call.
        """
        return self._before

    def is_as_before(self, prints: dict[str, Any], arguments: Any) -> bool:
        """Whether the function carries now what it carried then, as far as a short look tells."""
        self._deadline = perf_counter() + _SHORT_LOOK_S
        try:
            return self._prints(self._look_at(arguments)) == prints and not self.stays
        except Exception:
            return False
        finally:
            self.stays, self.settled = "", False

    def adopt(self, evidence: Evidence) -> None:
        """Take over what an earlier call of the function found, with arguments of the same type."""
        self.stays, self.settled, self.move_s = evidence.stays, True, evidence.move_s
        self.one_thread = evidence.one_thread
        self.argument_bytes, self.result_bytes = evidence.argument_bytes, evidence.result_bytes

    def give_up(self) -> None:
        """There will be no more time than there was."""
        if not self.settled:
            self._stay("what it carries is too large to compare in the time that it takes")

    def begin(self, arguments: Any, seconds: float) -> bool:
        """Look at everything before the call.

        Args:
            arguments: of the item that comes next.
            seconds: what the look may take, before and after each.

        Returns:
            Whether there was time; then `end` is to be called after the item.
        """
        try:
            captures = self._look_at(arguments)
            self._seconds = seconds
            self._deadline = perf_counter() + seconds
            if captures.assigned:
                self.alone = f"it assigns `{captures.assigned[0]}`, which it carries"
                return self._stay(f"it assigns `{captures.assigned[0]}`, which it carries")
            if captures.hashes and not os.environ.get("PYTHONHASHSEED", "").isdigit():
                return self._stay(
                    "it calls `hash`, which is not the same in a new process unless PYTHONHASHSEED "
                    "is set"
                )
            self._before = self._prints(captures)
            self._random = {} if self._seeded else _random_state()
            self._argument = self._print_argument(arguments)
        except TooLong:
            return False
        except Exception as error:  # a proxy, say, that refuses to be looked at
            return self._stay(f"what it carries cannot be looked at: {first_line(error)}")
        return not self.settled

    def _print_argument(self, arguments: Any) -> tuple[int, int] | None:
        try:
            return checksum(arguments, self._deadline, alone=True)
        except TooLong:
            raise
        except Bound as bound:
            self._stay(f"its argument holds {bound.what}")
            if is_bound_to_thread(bound.value):
                self.one_thread = f"its argument holds {bound.what} of this thread"
        except Exception as error:
            self._stay(f"its argument does not pickle: {first_line(error)}")
        return None

    def end(self, arguments: Any, result: Any) -> None:
        """Look again after the call, which returned `result`."""
        self._deadline = perf_counter() + 2 * self._seconds
        try:
            changed = self._changes(arguments) or self._argument_changes(arguments)
            if changed:
                self.alone = changed
                self._stay(changed)
            else:
                self._send_there_and_back(arguments, result)
        except TooLong:
            # It has grown, or the journey needs what is not loaded: it is asked again after another
            # item, with more time
            return
        except Exception as error:
            self._stay(f"what it carries cannot be looked at: {first_line(error)}")

    def _stay(self, why: str) -> bool:
        self.stays, self.settled = why, True
        return False

    def _prints(self, captures: Captures) -> dict[str, tuple[int, int]]:
        prints = {}
        for name, value in captures.values.items():
            try:
                prints[name] = checksum(value, self._deadline)
            except Bound as bound:
                self._stay(f"it uses `{name}`, {bound.what}")
                if type(bound.value).__module__ not in _FOR_THREADS:
                    self.alone = f"it uses `{name}`, {bound.what}"
                if is_bound_to_thread(bound.value):
                    self.one_thread = f"it uses `{name}`, {bound.what} of this thread"
            except TooLong:
                raise
            except Exception as error:
                self._stay(f"it carries `{name}`, which cannot be compared: {first_line(error)}")
                self.alone = self.stays
        return prints

    def _look_at(self, arguments: Any) -> Captures:
        return Captures(
            self._function, [arguments, *(arguments if isinstance(arguments, tuple) else ())]
        )

    def _changes(self, arguments: Any) -> str:
        after = self._prints(self._look_at(arguments))
        for name in [*after, *self._before]:
            if after.get(name) != self._before.get(name):
                return f"the call changes `{name}`, which it carries"
        states = {} if self._seeded else _random_state()
        if states.keys() - self._random.keys():
            # The call has loaded a generator: whether it draws from it, the next one will tell
            raise TooLong
        for name, state in states.items():
            if self._random[name] != state:
                return (
                    f"it draws random numbers from `{name}`, whose order the loop keeps; with "
                    "seed= each item has its own"
                )
        return ""

    def _argument_changes(self, arguments: Any) -> str:
        return (
            "the call changes its argument"
            if self._print_argument(arguments) != self._argument
            else ""
        )

    def _send_there_and_back(self, arguments: Any, result: Any) -> None:
        what = "argument"
        try:
            there, there_s = self._travel(arguments)
            what = "result"
            back, back_s = self._travel(result)
            copy = unpack(back.data, back.buffers)
        except TooLong:
            raise
        except Exception as error:
            self._stay(f"its {what} does not survive pickling: {first_line(error)}")
            return
        self.move_s = there_s + back_s
        self.argument_bytes, self.result_bytes = there.nbytes, back.nbytes
        if back.nbytes < _COMPARE_BYTES and not _same(result, back, copy):
            self._stay(
                f"its result, of type {type(result).__name__}, is another one after pickling"
            )
        self.settled = True

    def _travel(self, value: object) -> tuple[Parcel, float]:
        """Pickle and unpickle.

        Returns the parcel, and seconds beyond what anything takes, since items travel many at a
        time.
        """
        took = []
        # Twice each, for the first time finds nothing in the caches
        for each in (value, None, value, None):
            began = perf_counter()
            parcel = self._pack(each)
            unpack(parcel.data, parcel.buffers)
            took.append(perf_counter() - began)
            if each is value:
                kept = parcel
                if took[-1] > _SHORT_S:
                    return kept, took[-1]
        return kept, max(0.0, min(took[::2]) - min(took[1::2]))

    def _pack(self, value: object) -> Parcel:
        """Pickle; by value only if there is time to load what that takes."""
        parcel = pack_by_reference(value)
        if parcel is None and "cloudpickle" not in sys.modules and self._seconds < _LOADING_S:
            raise TooLong
        return parcel or pack_by_value(value)


def _same(result: Any, parcel: Parcel, copy: Any) -> bool:
    """Whether a result has survived the journey.

    It pickles as before, or is equal, or settles after one journey more. The last is for objects
    with attribute names that are interned on the way, so that the first pickle looks different.
    """
    if type(copy) is not type(result):
        return False
    again = pack(copy)
    if again.data == parcel.data:
        return True
    try:
        if bool(copy == result):
            return True
    except Exception:  # arrays have no truth value
        pass
    return pack(unpack(again.data, again.buffers)).data == again.data


def _random_state() -> dict[str, int]:
    """A checksum of each global generator that is loaded."""
    states: dict[str, int] = {}
    if (python := sys.modules.get("random")) is not None:
        states["random"] = hash(python.getstate())
    if (numpy := sys.modules.get("numpy.random")) is not None:
        state = numpy.get_state(legacy=False)
        states["numpy.random"] = hash(
            (state["state"]["key"].tobytes(), state["state"]["pos"], state["has_gauss"])
        )
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_rng_state"):
        states["torch"] = hash(torch.get_rng_state().numpy().tobytes())
    return states
