# SPDX-License-Identifier: BSD-3-Clause
"""Models that yield their outputs, and clients that read them, or leave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from teamster.errors import UsageError
from teamster.serve import Server
from teamster.serve.streaming import _AHEAD
from tests.serve.asking import client, error_of, until

EVENTS = {"accept": "text/event-stream"}
LINES = {"accept": "application/x-ndjson"}


def spell(text: str) -> Iterator[str]:
    if not text:
        raise ValueError("nothing to spell")
    for letter in text:
        if letter == "?":
            raise LookupError("no letter")
        yield letter


class Steps:
    """Yields when it is told to; says what has become of it."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.given = 0
        self.is_closed = False

    def predict(self, count: int) -> Iterator[int]:
        try:
            for number in range(count):
                assert self.allowed.acquire(timeout=30)
                self.given += 1
                yield number
        finally:
            self.is_closed = True


def events(answer: httpx.Response) -> list[tuple[str, Any]]:
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


@pytest.fixture(scope="module", params=["thread", "process"])
def speller(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with Server(spell, workers=1, kind=request.param).start() as running:
        with client(running) as found:
            yield found


def test_events_lines_and_a_list(speller: httpx.Client) -> None:
    answer = speller.post("/predict", json="abc", headers=EVENTS)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert events(answer) == [
        ("message", "a"),
        ("message", "b"),
        ("message", "c"),
        ("end", None),
    ]
    answer = speller.post("/predict", json="ab", headers=LINES)
    assert (answer.headers["content-type"], answer.text) == ("application/x-ndjson", '"a"\n"b"\n')
    assert speller.post("/predict", json="ab").json() == ["a", "b"]


def test_an_error_before_the_first_item_has_its_status(speller: httpx.Client) -> None:
    for headers in (EVENTS, LINES, {}):
        answer = speller.post("/predict", json="", headers=headers)
        assert error_of(answer) == (500, "ValueError", "")
    assert error_of(speller.post("/predict", json=[], headers=EVENTS))[0] == 422


def test_an_error_after_it_is_the_last_item() -> None:
    with Server(spell, workers=1).start() as running, client(running) as asked:
        found = events(asked.post("/predict", json="ab?c", headers=EVENTS))
        assert [kind for kind, _ in found] == ["message", "message", "error"]
        assert found[-1][1]["error"]["type"] == "LookupError"
        lines = asked.post("/predict", json="a?", headers=LINES).text.splitlines()
        assert [json.loads(each) for each in lines][-1]["error"]["message"] == "no letter"
        assert asked.post("/predict", json="ok", headers=EVENTS).status_code == 200


def test_items_come_when_they_are_there() -> None:
    steps = Steps()
    with Server(steps, workers=1).start() as running, client(running) as asked:
        steps.allowed.release()  # an answer begins with its first item
        with asked.stream("POST", "/predict", content=b"3", headers=LINES) as answer:
            lines = answer.iter_lines()
            for number in range(3):
                assert next(lines) == str(number)
                assert steps.given == number + 1
                steps.allowed.release()
            assert list(lines) == []
    assert steps.is_closed


def test_a_client_that_leaves_ends_its_generator() -> None:
    steps = Steps()
    with Server(steps, workers=1).start() as running, client(running) as asked:
        steps.allowed.release()
        with asked.stream("POST", "/predict", content=b"1000000", headers=EVENTS) as answer:
            next(answer.iter_lines())

        def has_ended() -> bool:
            steps.allowed.release()
            return steps.is_closed

        until(has_ended)
        assert steps.given < 100_000
        for _ in range(3):
            steps.allowed.release()
        answer = asked.post("/predict", content=b"3", headers=LINES)
        assert answer.text == "0\n1\n2\n"


def test_a_client_that_stalls_holds_its_model_back() -> None:
    given = 0

    def many(size: int) -> Iterator[str]:
        nonlocal given
        for _ in range(100_000):
            given += 1
            yield "x" * size

    with Server(many, workers=1).start() as running, client(running) as asked:
        with asked.stream("POST", "/predict", content=b"1000000", headers=LINES) as answer:
            parts = answer.iter_raw(100)  # kept: without it the answer would be closed
            next(parts)
            until(lambda: given > _AHEAD)  # as many as sockets hold come before those
            before, looks = 0, 0
            while looks < 10 and given < 1000:
                looks = looks + 1 if given == before else 0
                before = given
                time.sleep(0.1)  # not a wait for anything: it would go on, were it not held back
            assert given < 1000


def test_several_at_a_time_and_the_end_of_the_server() -> None:
    steps = Steps()
    answers: list[str] = []

    def ask(url: str) -> None:
        answers.append(httpx.post(f"{url}/predict", content=b"2", headers=LINES, timeout=30).text)

    with Server(steps, workers=2).start() as running:
        threads = [threading.Thread(target=ask, args=(running.url,)) for _ in range(4)]
        for each in threads:
            each.start()
        for _ in range(8):
            steps.allowed.release()
        for each in threads:
            each.join()
    assert answers == ["0\n1\n"] * 4


def test_a_function_that_returns_an_iterator() -> None:
    with Server(
        lambda n: (each * each for each in range(n)), workers=1, example=2
    ).start() as running:
        with client(running) as asked:
            assert asked.post("/predict", content=b"4").json() == [0, 1, 4, 9]
            assert asked.post("/predict", content=b"2", headers=LINES).text == "0\n1\n"


def test_an_output_that_is_no_iterator_is_one_event() -> None:
    with Server(abs, workers=1, kind="thread").start() as running, client(running) as asked:
        answer = asked.post("/predict", content=b"-3", headers=EVENTS)
        assert events(answer) == [("message", 3), ("end", None)]


def test_async_functions_are_refused() -> None:
    async def later(value: int) -> int:
        return value

    with pytest.raises(UsageError, match="later is async"):
        Server(later)
