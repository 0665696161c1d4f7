# SPDX-License-Identifier: BSD-3-Clause
"""Why the slowest requests were slow, in words, out of the moments of the last ones.

::

    the slowest hundredth --> the parts of their time, summed
        queue:    behind which batches?        those that computed meanwhile
        compute:  longer than its median?      and did another program have the processor?
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from teamster.serve.past import Answered, Computed, Past
from teamster.serve.quantiles import quantile
from teamster.units import show_seconds

_SLOW = 0.99  # the quantile whose requests are explained
_SHOWN = 10  # of the slowest requests, one by one
_TOLD = 0.05  # of their time: a smaller part is not worth words
_LONGER = 1.2  # times its median: a computation that needs a reason
_MOST_OF_IT = 0.5  # of what it took longer: a cause that stands for it
_TOO_FEW = 20  # requests: their slowest one is what it is by chance

PARTS = "read", "decode", "hold", "queue", "compute", "back"
_WORDS = {
    "read": "to read their bodies from the network",
    "decode": "to decode the inputs",
    "hold": "held back for a larger batch",
    "back": "on the way back, until the event loop had its turn",
}


class Slow(NamedTuple):
    """One slow request.

    Attributes:
        answer: its moments.
        batch: that it was in; None for one that was not computed, or is forgotten.
        parts: nanoseconds by the names of `PARTS`.
    """

    answer: Answered
    batch: Computed | None
    parts: dict[str, int]

    @property
    def total_ns(self) -> int:
        """From its head to its answer."""
        return self.answer.answered_ns - self.answer.came_ns


def explain(past: Past, promised_s: float | None = None) -> dict[str, Any]:
    """Why the slowest requests were slow.

    Args:
        past: of the model.
        promised_s: the promise on latency, in seconds; None for none.

    Returns:
        What JSON holds: ``why`` is a list of sentences, ``slowest`` a list of requests with the
        milliseconds of each part.

    Example:
        >>> explain(Past())["why"]
        ['no request has been answered yet']
    """
    requests = [each for each in past.requests if each.status != 429]
    refused = len(past.requests) - len(requests)
    if not requests:
        return {"requests": 0, "refused": refused, "why": [_nothing(refused)], "slowest": []}
    times = sorted(each.answered_ns - each.came_ns for each in requests)
    limit = quantile(times, _SLOW)
    batches = {each.number: each for each in past.batches}
    slow = [_slow(each, batches) for each in requests if each.answered_ns - each.came_ns >= limit]
    slow.sort(key=lambda each: -each.total_ns)
    return {
        "requests": len(requests),
        "refused": refused,
        "p50_ms": _ms(quantile(times, 0.5)),
        "p99_ms": _ms(limit),
        "why": list(_sentences(slow, past, times, refused, promised_s)),
        "slowest": [_row(each) for each in slow[:_SHOWN]],
    }


def _nothing(refused: int) -> str:
    if refused:
        return f"all of the last {refused} requests were refused: they would have been late"
    return "no request has been answered yet"


def _slow(answer: Answered, batches: Mapping[int, Computed]) -> Slow:
    batch = batches.get(answer.batch)
    parts = dict.fromkeys(PARTS, 0)
    parts["read"] = answer.read_ns - answer.came_ns
    parts["decode"] = answer.decoded_ns - answer.read_ns
    if not answer.computed_ns:  # it has never been begun
        parts["queue"] = answer.answered_ns - answer.decoded_ns
        return Slow(answer, batch, parts)
    waited = max(0, answer.started_ns - answer.decoded_ns)
    parts["hold"] = min(waited, batch.held_ns) if batch is not None else 0
    parts["queue"] = waited - parts["hold"]
    parts["compute"] = answer.computed_ns - answer.started_ns
    parts["back"] = answer.answered_ns - answer.computed_ns
    return Slow(answer, batch, parts)


def _sentences(
    slow: Sequence[Slow],
    past: Past,
    times: Sequence[int],
    refused: int,
    promised_s: float | None,
) -> Iterable[str]:
    sums = {part: sum(each.parts[part] for each in slow) for part in PARTS}
    whole = max(1, sum(sums.values()))
    told = []
    for part in sorted(PARTS, key=lambda each: -sums[each]):
        share = sums[part] / whole
        if share >= _TOLD:
            told.append(f"{share:.0%} {_words(part, slow, past.batches)}")
    subject = "p99 is" if len(times) >= _TOO_FEW else "the slowest request took"
    shown = show_seconds(quantile(times, _SLOW) / 1e9)
    yield f"{subject} {shown}: " + ", ".join(told)
    again = sum(each.batch is not None and not each.batch.whole for each in slow)
    if again:
        yield (
            f"{again} of the {len(slow)} slowest were in batches that were computed again in parts,"
            " for an input of theirs has failed"
        )
    if promised_s is not None:
        kept = bisect_right(times, int(promised_s * 1e9)) / len(times)
        yield f"{show_seconds(promised_s)} were promised: {kept:.1%} of the answers kept that"
    if refused:
        yield f"{refused} requests were refused: they would have been late"


def _words(part: str, slow: Sequence[Slow], batches: Iterable[Computed]) -> str:
    if part == "queue":
        return f"queued{_behind(slow, batches)}"
    if part == "compute":
        return f"compute{_longer(slow, batches)}"
    return _WORDS[part]


def _behind(slow: Sequence[Slow], batches: Iterable[Computed]) -> str:
    """What computed while they waited, the most of the time."""
    begun = sorted(batches, key=lambda each: each.started_ns)
    starts = [each.started_ns for each in begun]
    longest = max((each.computed_ns - each.started_ns for each in begun), default=0)
    overlaps: Counter[tuple[int, int]] = Counter()
    for each in slow:
        since, until = each.answer.decoded_ns, each.answer.started_ns or each.answer.answered_ns
        for batch in begun[bisect_left(starts, since - longest) : bisect_left(starts, until)]:
            both = min(batch.computed_ns, until) - max(batch.started_ns, since)
            if both > 0:
                overlaps[batch.rows, batch.replica] += both
    if sum(overlaps.values()) < _MOST_OF_IT * sum(each.parts["queue"] for each in slow):
        return " until the server came to them (it was reading and answering others)"
    rows, replica = overlaps.most_common(1)[0][0]
    what = "a single request" if rows == 1 else f"a batch of {rows}"
    return f" behind {what} on replica {replica}"


def _longer(slow: Sequence[Slow], batches: Iterable[Computed]) -> str:
    """Beside the median of batches of their size, and what had the processor."""
    takes: dict[int, list[int]] = defaultdict(list)
    for batch in batches:
        takes[batch.rows].append(batch.computed_ns - batch.started_ns)
    known = [(each, each.batch) for each in slow if each.batch is not None]
    if not known:
        return ""
    usual = sum(median(takes[batch.rows]) for _, batch in known)
    ratio = sum(each.parts["compute"] for each, _ in known) / max(1, usual)
    if ratio < _LONGER:
        rows = Counter(batch.rows for _, batch in known).most_common(1)[0][0]
        return f" (in a batch of {rows})" if rows > 1 else ""
    excess = (ratio - 1) * usual
    delayed = sum(batch.delay_ns for _, batch in known)
    why = ": other threads or programs had the processor" if delayed > excess * _MOST_OF_IT else ""
    return f" ({ratio:.1f} times its median{why})"


def _row(slow: Slow) -> dict[str, Any]:
    batch = slow.batch
    return {
        "total_ms": _ms(slow.total_ns),
        "status": slow.answer.status,
        "batch": None if batch is None else batch.rows,
        "replica": None if batch is None else batch.replica,
        **{f"{part}_ms": _ms(slow.parts[part]) for part in PARTS},
    }


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
