# SPDX-License-Identifier: BSD-3-Clause
"""mosec in `benchmarks.serving`: ``python -m benchmarks.serving_mosec MODEL PORT BATCH WAIT_MS``.

Its workers are spawned, and find their class by name: hence a file of its own.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
from mosec import Server, Worker

from benchmarks.serving_servers import WORKERS, batch_function


class Model(Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        self.compute = batch_function(os.environ["SERVED_MODEL"])
        self.is_batched = int(os.environ["SERVED_BATCH"]) > 1

    def deserialize(self, data: bytes) -> Any:
        return msgspec.json.decode(data)

    def serialize(self, data: Any) -> bytes:
        return msgspec.json.encode(data)

    def forward(self, data: Any) -> Any:
        return self.compute(data) if self.is_batched else self.compute([data])[0]


if __name__ == "__main__":
    name, port, batch, wait_ms = sys.argv[1:]
    os.environ.update(SERVED_MODEL=name, SERVED_BATCH=batch)
    sys.argv[1:] = ["--port", port, "--log-level", "warning", "--timeout", "60000"]
    server = Server()
    server.append_worker(
        Model, num=WORKERS, max_batch_size=int(batch), max_wait_time=max(1, int(wait_ms))
    )
    server.run()
