# SPDX-License-Identifier: BSD-3-Clause
"""What a job answers when ``teamster top`` asks, as values that can be trusted to have their types.

What comes through a socket may be anything: another version, half a line, a file name with a
newline in it. A number that is none is 0, a text is one printable line, and what is no answer at
all is a ValueError with a sentence for the screen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

VERSION = 1
"""Of the answers that are understood here."""

_HUGE = 1e18  # more is no measurement


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """One worker.

    Attributes:
        label: such as ``"process 3"``.
        kind: ``"caller"``, ``"thread"``, ``"interpreter"`` or ``"process"``.
        pid: its process id; None where it is not a process.
        state: ``"running"``, ``"loading"``, ``"starting"``, ``"idle"``, ``"absent"``, or what a job
            says.
        items: that it has done.
        busy_s: seconds that these took.
        function: what it runs, or nothing.
        index: of the item that it runs; None when that is not known.
        since_s: seconds for which it has been running that item.
        memory_bytes: that its process takes; 0 when that is not known.
    """

    label: str
    kind: str
    pid: int | None
    state: str
    items: int
    busy_s: float
    function: str
    index: int | None
    since_s: float
    memory_bytes: int

    @property
    def works(self) -> bool:
        """Whether it runs an item, or is about to."""
        return self.state in ("running", "loading")


@dataclass(frozen=True, slots=True)
class CallSeen:
    """One call under way: ``map`` and its kin.

    Attributes:
        function: what it calls.
        done: items that are done.
        total: how many there are; None when that is not known.
        seconds: since it began.
    """

    function: str
    done: int
    total: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """One pool.

    Attributes:
        name: what tells it from the job's others.
        title: its workers, such as ``"process(8)"``.
        reason: why these.
        items: that are done, failed ones included.
        failures: items that ended with an exception.
        wall_s: seconds during which at least one call was under way.
        deaths: workers that died.
        retries: items that were run again.
        timeouts: items that ran too long.
        moved_bytes: that went to workers and came back.
        queue: items handed out or queued, and not done.
        calls: under way, the oldest first.
        workers: by their number.
    """

    name: str
    title: str
    reason: str
    items: int
    failures: int
    wall_s: float
    deaths: int
    retries: int
    timeouts: int
    moved_bytes: int
    queue: int
    calls: tuple[CallSeen, ...]
    workers: tuple[WorkerSeen, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one job said.

    Attributes:
        pid: its process id.
        command: what was typed, without the interpreter.
        now_s: the clock when it said so, in seconds; only differences mean anything.
        memory_bytes: of the program and its workers together.
        pools: those that are open.
        raw: all of it, as it came.
    """

    pid: int
    command: str
    now_s: float
    memory_bytes: int
    pools: tuple[PoolSeen, ...]
    raw: dict[str, Any]


def read_answer(line: bytes) -> Answer:
    """Make sense of a job's answer.

    Args:
        line: JSON.

    Returns:
        What it says.

    Raises:
        ValueError: it is no answer, or none that this version understands.

    Example:
        >>> read_answer(b'{"version": 1, "pid": 7, "pools": []}').pid
        7
        >>> read_answer(b'{"version": 9}')
        Traceback (most recent call last):
        ValueError: it speaks version 9; this teamster understands 1
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or "version" not in value:
        raise ValueError("what it answers makes no sense")
    fields = _Fields(value)
    if value["version"] != VERSION:
        raise ValueError(
            f"it speaks version {fields.text('version')}; this teamster understands {VERSION}"
        )
    pools = tuple(_read_pool(pool, number) for number, pool in enumerate(fields.each("pools")))
    # The threads of a pool have no process of their own: what they take is the program's.
    workers = {
        worker.pid: worker.memory_bytes for pool in pools for worker in pool.workers if worker.pid
    }
    return Answer(
        pid=fields.count("pid"),
        command=fields.text("command"),
        now_s=fields.number("now_ns") / 1e9,
        memory_bytes=fields.count("memory_bytes") + sum(workers.values()),
        pools=pools,
        raw=value,
    )


def _read_pool(fields: _Fields, number: int) -> PoolSeen:
    calls = [
        CallSeen(
            each.text("function"),
            each.count("done"),
            each.count_or_none("total"),
            each.number("seconds"),
        )
        for each in fields.each("calls")
    ]
    return PoolSeen(
        name=fields.text("id") or str(number),
        title=fields.text("title") or "pool",
        reason=fields.text("reason"),
        items=fields.count("items"),
        failures=fields.count("failures"),
        wall_s=fields.number("wall_s"),
        deaths=fields.count("deaths"),
        retries=fields.count("retries"),
        timeouts=fields.count("timeouts"),
        moved_bytes=fields.count("pickled_bytes") + fields.count("arena_bytes"),
        queue=fields.count("queue"),
        calls=tuple(sorted(calls, key=lambda call: -call.seconds)),
        workers=tuple(_read_worker(worker) for worker in fields.each("workers")),
    )


def _read_worker(fields: _Fields) -> WorkerSeen:
    return WorkerSeen(
        label=fields.text("label"),
        kind=fields.text("kind"),
        pid=fields.count_or_none("pid"),
        state=fields.text("state"),
        items=fields.count("items"),
        busy_s=fields.number("busy_s"),
        function=fields.text("function"),
        index=fields.count_or_none("index"),
        since_s=fields.number("since_s"),
        memory_bytes=fields.count("memory_bytes"),
    )


class _Fields:
    """Reads a JSON object without trusting it."""

    def __init__(self, value: Any) -> None:
        self._value: dict[str, Any] = value if isinstance(value, dict) else {}

    def number(self, name: str) -> float:
        value = self._value.get(name)
        if isinstance(value, int | float) and -_HUGE < value < _HUGE:
            # The bounds exclude what is no number, too
            return float(value)
        return 0.0

    def count(self, name: str) -> int:
        return max(0, int(self.number(name)))

    def count_or_none(self, name: str) -> int | None:
        return None if self._value.get(name) is None else self.count(name)

    def text(self, name: str) -> str:
        """One line, in which nothing moves the cursor or changes the colours."""
        value = self._value.get(name)
        words = "" if value is None else " ".join(str(value).split())
        return "".join(letter if letter.isprintable() else "?" for letter in words)

    def each(self, name: str) -> list[_Fields]:
        value = self._value.get(name)
        return (
            [_Fields(each) for each in value if isinstance(each, dict)]
            if isinstance(value, list)
            else []
        )
