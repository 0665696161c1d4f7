# SPDX-License-Identifier: BSD-3-Clause
"""Models of `benchmarks.serving`, and two of its servers; arguments: SERVER MODEL PORT."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import torch
from torch import nn

WORKERS = 2
WIDTH, CLASSES = 128, 10
HIDDEN, LAYERS = 2560, 4  # 105 MB of weights: a request alone is bound by memory


def mlp() -> nn.Module:
    torch.manual_seed(0)
    inner = [layer for _ in range(LAYERS) for layer in (nn.Linear(HIDDEN, HIDDEN), nn.ReLU())]
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), *inner, nn.Linear(HIDDEN, CLASSES)).eval()


class Cnn(nn.Module):  # type: ignore[misc]  # torch is not followed
    """An image of 64 x 64; what it takes grows with the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((1, 32), (32, 64))),
            *(nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU()) for _ in range(3)),
            nn.Flatten(),
            nn.Linear(64 * 256, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x.view(-1, 1, 64, 64))


MODELS: dict[str, Callable[[], nn.Module] | None] = {
    "echo": None,
    "mlp": mlp,
    "cnn": lambda: Cnn().eval(),
}
SIZES = {"echo": WIDTH, "mlp": WIDTH, "cnn": 64 * 64}


def batch_function(name: str) -> Callable[[list[Any]], list[Any]]:
    """Of lists of numbers, as a careful user writes it."""
    make = MODELS[name]
    if make is None:
        return lambda values: values
    torch.set_num_threads(1)
    module = make()

    def compute(values: list[Any]) -> list[Any]:
        with torch.inference_mode():
            found: list[Any] = module(torch.tensor(values, dtype=torch.float32)).tolist()
        return found

    return compute


def ours(name: str, port: int) -> None:
    from teamster.serve import Server

    make = MODELS[name]
    example = [0.0] * SIZES[name]
    model: Any = (lambda values: values) if make is None else make()
    batched = True if make is None else None
    Server(model, workers=WORKERS, batched=batched, example=example).run(port=port)


def of_fastapi(name: str, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import Response

    globals()["Request"] = Request  # where the annotation is looked up
    app, threads = FastAPI(), ThreadPoolExecutor(WORKERS)
    compute = batch_function(name)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        import asyncio

        value = await request.json()
        loop = asyncio.get_running_loop()
        (found,) = await loop.run_in_executor(threads, compute, [value])
        return Response(msgspec.json.encode(found), media_type="application/json")

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("model")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    {"teamster": ours, "fastapi": of_fastapi}[arguments.server](arguments.model, arguments.port)


if __name__ == "__main__":
    main()
