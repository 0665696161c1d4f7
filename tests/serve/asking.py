# SPDX-License-Identifier: BSD-3-Clause
"""Clients; one of them asks as fast as it can, for httpx takes longer for a request than we do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import torch
from torch import nn

DEADLINE_S = 30.0


async def ask_many(url: str, inputs: Iterable[Any], connections: int) -> list[Any]:
    """The answers in the order of the inputs, each connection one after the other."""
    answers: dict[int, Any] = {}
    left = enumerate(inputs)
    await asyncio.gather(*(_keep_asking(url, left, answers) for _ in range(connections)))
    return [answers[index] for index in range(len(answers))]


async def _keep_asking(url: str, left: Iterator[tuple[int, Any]], answers: dict[int, Any]) -> None:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for index, value in left:
        body = json.dumps(value).encode()
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        assert lines[0].startswith(b"http/1.1 200"), lines
        length = next(int(each[15:]) for each in lines if each.startswith(b"content-length:"))
        answers[index] = json.loads(await reader.readexactly(length))
    writer.close()
    await writer.wait_closed()


def client(running: Any, **options: Any) -> httpx.Client:
    return httpx.Client(base_url=running.url, timeout=DEADLINE_S, **options)


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    found = answer.json()["error"]
    assert set(found) == {"type", "message", "where"}
    return answer.status_code, found["type"], found["where"]


def until(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def expected(module: nn.Module, rows: list[list[float]]) -> Any:
    with torch.no_grad():
        return module.eval()(torch.tensor(rows)).numpy()
