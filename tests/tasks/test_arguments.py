# SPDX-License-Identifier: BSD-3-Clause
"""What makes no sense is refused before anything starts."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest

import teamster as ts
from teamster.tasks.arguments import is_async


async def fetch(number: int) -> int:
    return number


async def stream(number: int) -> AsyncIterator[int]:
    yield number


class Client:
    async def fetch(self, number: int) -> int:
        return number

    @classmethod
    async def make(cls, number: int) -> int:
        return number

    @staticmethod
    async def load(number: int) -> int:
        return number


class Fetcher:
    async def __call__(self, number: int) -> int:
        return number


class Plain:
    def __init__(self, number: int = 0) -> None:
        self.number = number

    def __call__(self, number: int) -> int:
        return asyncio.run(fetch(number))

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError(f"nobody is to ask for {name}")


ASYNC = {
    "function": fetch,
    "generator": stream,
    "method": Client().fetch,
    "class method": Client.make,
    "static method": Client.load,
    "object": Fetcher(),
    "partial": functools.partial(functools.partial(fetch), 1),
    "partial of an object": functools.partial(Fetcher(), 1),
}


@pytest.mark.parametrize("backend", ["serial", "thread", "process", "auto"])
@pytest.mark.parametrize("function", ASYNC.values(), ids=ASYNC.keys())
def test_async_functions_are_refused_everywhere_alike(
    function: Callable[..., Any], backend: Literal["serial", "thread", "process", "auto"]
) -> None:
    with ts.Pool(backend, workers=1 if backend == "serial" else None) as pool:
        for call in (pool.map, pool.imap, pool.imap_unordered):
            with pytest.raises(ts.UsageError, match=r"`async def`.*asyncio.run"):
                call(function, [1, 2])
        with pytest.raises(ts.UsageError, match=r"`async def`.*asyncio.run"):
            pool.submit(function, 1)


PLAIN = [
    abs,
    len,
    Plain,
    Fetcher,
    Plain(),
    functools.partial(pow, 2),
    lambda n: fetch(n),
    "x".join,
    functools.cache(abs),
]


@pytest.mark.parametrize("function", PLAIN, ids=range(len(PLAIN)))
def test_what_only_knows_async_functions_is_none(function: Callable[..., Any]) -> None:
    assert not is_async(function)
