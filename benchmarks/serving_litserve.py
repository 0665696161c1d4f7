# SPDX-License-Identifier: BSD-3-Clause
"""LitServe in `benchmarks.serving`; its arguments: MODEL PORT BATCH WAIT_MS."""

import sys
from typing import Any

import litserve

from benchmarks.serving_servers import WORKERS, batch_function


class Api(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, name: str, batch: int, wait_s: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait_s)
        self.name, self.is_batched = name, batch > 1

    def setup(self, device: str) -> None:
        self.compute = batch_function(self.name)

    def batch(self, inputs: Any) -> Any:
        return inputs

    def unbatch(self, outputs: Any) -> Any:
        return outputs

    def predict(self, inputs: Any) -> Any:
        return self.compute(inputs) if self.is_batched else self.compute([inputs])[0]

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    name, port, batch, wait_ms = sys.argv[1:]
    api = Api(name, int(batch), int(wait_ms) / 1_000)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60).run(
        port=int(port), log_level="warning", generate_client_file=False
    )
