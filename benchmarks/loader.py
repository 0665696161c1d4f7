# SPDX-License-Identifier: BSD-3-Clause
"""`teamster.data.DataLoader` as it comes beside torch's own at every number of workers.

Question: is the loader that tunes itself as fast as torch's at its best setting, or faster, with
          the consumer's step in the loop?
Method:   workloads of seven kinds; torch's loader with 0, 1, 2 and 4 workers and ours with
          `num_workers="auto"`, interleaved, medians of rounds. An epoch of ours is measured twice:
          the first, in which it decides, and the second, with what it has decided.
Command:  make bench-loader ARGS="--rounds 3"
Result:   see docs/data_loading.md.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import tokenize
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils import data

from teamster.data import DataLoader

TORCH = (0, 1, 2, 4)


class Jpegs(data.Dataset[Any]):
    """A photo of 500 x 375 pixels is decoded and made smaller."""

    def __init__(self, count: int) -> None:
        from PIL import Image

        noise = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 32), (375, 500))[0]
        pixels = (noise.permute(1, 2, 0) * 255).byte().numpy()
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        self.data, self.count = stream.getvalue(), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        import numpy
        from PIL import Image

        image = Image.open(io.BytesIO(self.data)).convert("RGB").resize((224, 224))
        return torch.from_numpy(numpy.array(image)), index


class Sources(data.Dataset[Any]):
    """A file of the standard library is cut into tokens, in Python."""

    def __init__(self, count: int) -> None:
        files = sorted(Path(tokenize.__file__).parent.glob("*.py"))
        self.texts = [text for file in files if 4_000 < len(text := file.read_text()) < 16_000]
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        text = self.texts[index % len(self.texts)]
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
        return torch.tensor((kinds + [0] * 256)[:256])


class Tiny(data.Dataset[Any]):
    def __init__(self, count: int) -> None:
        self.rows = torch.rand(count, 64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class Remote(data.Dataset[Any]):
    """A read that waits 20 ms."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.02)
        return index


class Uneven(Remote):
    """2% of the samples take 100 ms, the others 2 ms."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.1 if index % 50 == 7 else 0.002)
        return index


Workload = tuple[Callable[[], Any], int]  # dataset, batch size

WORKLOADS: dict[str, Workload] = {
    "JPEG decode and resize": (lambda: Jpegs(800), 32),
    "tokenizing in Python": (lambda: Sources(600), 32),
    "tiny tensors": (lambda: Tiny(40_000), 32),
    "arrays in memory": (lambda: data.TensorDataset(torch.rand(100_000, 64)), 256),
    "reads that wait 20 ms": (lambda: Remote(400), 16),
    "uneven samples": (lambda: Uneven(600), 16),
}


def epoch(loader: Iterable[Any], step: Callable[[], object]) -> tuple[float, float]:
    """Seconds of an epoch with the consumer's step, and to its first batch."""
    began, first = time.perf_counter(), 0.0
    for _ in loader:
        first = first or time.perf_counter() - began
        step()
    return time.perf_counter() - began, first


def trainer() -> Callable[[], object]:
    """A step of about half a millisecond."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    rows = torch.rand(64, 64)
    return lambda: model(rows).sum().backward()


def measure(name: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    make, batch_size = WORKLOADS[name]
    step, found = trainer(), dict[str, list[tuple[float, float]]]()
    for _ in range(rounds):
        dataset = make()
        for workers in TORCH:
            loader: Any = data.DataLoader(dataset, batch_size, num_workers=workers)
            found.setdefault(f"torch {workers}", []).append(epoch(loader, step))
        ours = DataLoader(dataset, batch_size)
        found.setdefault("auto, first epoch", []).append(epoch(ours, step))
        found.setdefault("auto", []).append(epoch(ours, step))
        found.setdefault("plan " + str(ours.explain()), []).append((0.0, 0.0))
    return found


def show(name: str, found: dict[str, list[tuple[float, float]]]) -> None:
    seconds = {way: statistics.median(total for total, _ in runs) for way, runs in found.items()}
    firsts = {way: statistics.median(first for _, first in runs) for way, runs in found.items()}
    best = min((f"torch {workers}" for workers in TORCH), key=lambda way: seconds[way])
    print(f"\n{name}")
    for way in [f"torch {workers}" for workers in TORCH] + ["auto, first epoch", "auto"]:
        ratio = seconds[best] / seconds[way]
        print(
            f"  {way:18} {seconds[way]:8.3f} s  first batch {firsts[way] * 1e3:7.1f} ms  "
            f"{ratio:6.2f} times {best}"
        )
    for way in found:
        if way.startswith("plan"):
            print(f"  {way}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="workloads with this text in their name")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    for name in WORKLOADS:
        if options.only is None or options.only in name:
            show(name, measure(name, options.rounds))


if __name__ == "__main__":
    main()
