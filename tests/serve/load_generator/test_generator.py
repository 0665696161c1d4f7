# SPDX-License-Identifier: BSD-3-Clause
"""Loops of requests, against servers that behave and that do not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from teamster.errors import UsageError
from teamster.serve.load_generator.arrivals import arrivals_of
from teamster.serve.load_generator.connection import Target
from teamster.serve.load_generator.generator import closed_loop, open_loop
from teamster.serve.load_generator.results import LoadResults
from tests.serve.load_generator.answering import OK, Answer, serving, status
from tests.train.launching import free_port

# Of the server of the tests, where it ends while a connection is being accepted
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def closed(answer: Answer, bodies: Sequence[bytes] = (b"x",), connections: int = 3) -> LoadResults:
    with serving(answer) as url:
        target = Target.of(url)
        requests = [target.request(each, {}) for each in bodies]
        return closed_loop(target, requests, connections=connections, seconds=0.3)


def opened(answer: Answer, rate: float, seconds: float, most: int = 100) -> LoadResults:
    with serving(answer) as url:
        target = Target.of(url)
        moments = arrivals_of("uniform", rate, seconds)
        return open_loop(
            target, [target.request(b"x", {})], moments, connections=most, timeout_s=0.5
        )


def test_a_closed_loop_counts_what_the_server_has_answered() -> None:
    seen: Counter[bytes] = Counter()

    async def answer(body: bytes) -> bytes:
        seen[body] += 1
        return OK

    results = closed(answer, [b"a", b"b", b"c"])
    assert results.asked == results.good == seen.total() > 10
    assert results.connections == 3
    assert max(seen.values()) - min(seen.values()) <= 1  # in turn
    assert 0 < (results.quantile(0.5) or 0) <= (results.quantile(1.0) or 0)


def test_an_open_loop_waits_for_no_answer_and_counts_from_when_they_were_due() -> None:
    """A server that answers none before the last has come: a closed loop would hang on it."""
    count, all_there, came = 20, asyncio.Event(), Counter[bytes]()

    async def answer(body: bytes) -> bytes:
        came[body] += 1
        if came.total() == count:
            all_there.set()
        await all_there.wait()
        return OK

    results = opened(answer, rate=100, seconds=count / 100)
    assert results.good == results.asked == count
    assert results.connections == count
    assert (results.quantile(1.0) or 0) >= (count - 1) / 100  # the first one's


def test_requests_that_find_no_connection_wait_from_when_they_were_due() -> None:
    at_a_time, most = Counter[str](), 0

    async def answer(body: bytes) -> bytes:
        nonlocal most
        at_a_time["now"] += 1
        most = max(most, at_a_time["now"])
        await asyncio.sleep(0.02)
        at_a_time["now"] -= 1
        return OK

    results = opened(answer, rate=200, seconds=0.2, most=2)
    assert results.good == 40
    assert results.connections == most == 2
    # 40 of 20 ms by two take 0.4 s, and the last of them was due after 0.195
    assert (results.quantile(1.0) or 0) > 0.19


def test_statuses_and_connections_that_are_not_kept() -> None:
    number = 0

    async def answer(body: bytes) -> bytes:
        nonlocal number
        number += 1
        return status((200, 429, 500)[number % 3], keep=number % 2 == 0)

    results = closed(answer)
    assert set(results.statuses) == {200, 429, 500}
    assert results.statuses.total() == results.asked
    assert results.good == results.statuses[200]
    assert not results.errors


def test_a_server_that_closes_without_an_answer() -> None:
    number = 0

    async def answer(body: bytes) -> bytes | None:
        nonlocal number
        number += 1
        return None if number % 2 else OK

    results = closed(answer, connections=1)
    lost = results.errors["the server has closed the connection"]
    assert lost >= 1
    assert lost + results.good == results.asked


def test_something_that_is_not_http() -> None:
    async def answer(body: bytes) -> bytes:
        return b"hello\r\n\r\n"

    results = opened(answer, rate=50, seconds=0.1)
    assert not results.good
    assert sum(results.errors.values()) == results.asked == 5
    assert all(reason.startswith("no answer of HTTP") for reason in results.errors)


def test_a_server_that_never_answers() -> None:
    async def answer(body: bytes) -> bytes:
        await asyncio.sleep(3600)
        return OK

    results = opened(answer, rate=50, seconds=0.1)
    assert results.errors == {"no answer in 0.5 s": 5}


def test_no_server() -> None:
    target = Target.of(f"localhost:{free_port()}")
    with pytest.raises(UsageError, match=r"cannot connect to http://localhost:.*refused"):
        closed_loop(target, [target.request(b"", {})], connections=1, seconds=1)


def test_many_requests_at_once() -> None:
    async def answer(body: bytes) -> bytes:
        return OK

    with serving(answer) as url:
        target = Target.of(url)
        moments = iter([0.0] * 3_000)
        results = open_loop(target, [target.request(b"x", {})], moments, connections=50)
    assert results.good == 3_000
    assert results.connections == 50


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:y", "http://x:99999"])
def test_no_addresses(url: str) -> None:
    with pytest.raises(UsageError):
        Target.of(url)


def test_addresses() -> None:
    target = Target.of("https://user@example.org/a/b?c=d#e")
    assert (target.host, target.port, target.is_secure) == ("example.org", 443, True)
    assert target.path == "/a/b?c=d"
    assert target.request(b"", {"x": "y"}).startswith(b"GET /a/b?c=d HTTP/1.1\r\n")
