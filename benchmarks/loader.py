# SPDX-License-Identifier: BSD-3-Clause
"""`teamster.data.DataLoader` as it comes beside torch's own at every number of workers.

Question: is the loader that tunes itself as fast as torch's at its best setting, or faster, with
          the consumer's step in the loop? And as fast as its own best setting by hand?
Method:   workloads of nine kinds; torch's loader with 0, 1, 2, 4 and 8 workers, SPDL's pipeline
          with 2 threads (a stage to which a batch is one item), ours with `num_workers="auto"` and
          with 2 threads and 2 processes, interleaved, medians of rounds. Of "auto" the first epoch
          is shown, in which it decides, and the third. The consumer's step takes half a
          millisecond; where loading takes less than that, it does nothing with a batch. "Step" is
          what it takes beside what it is alone; processor seconds are those of the program and its
          processes, in the epoch. At the end: what an epoch over 1 GB of arrays adds to the memory
          of the program and its processes (PSS, which counts what is shared once).
Command:  make bench-loader ARGS="--rounds 3"
Result:   see docs/data_loading.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import statistics
import time
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch.utils import data

from teamster.data import DataLoader

TORCH = (0, 1, 2, 4, 8)
OURS = {"2 threads": "thread", "2 processes": "process"}


class Jpegs(data.Dataset[Any]):
    """A photo of 500 x 375 pixels is decoded and made smaller."""

    def __init__(self, count: int, size: tuple[int, int] = (375, 500)) -> None:
        from PIL import Image

        noise = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 32), size)[0]
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


class Large(data.Dataset[Any]):
    """Images of floats that are there already: 18 MB a batch of 32."""

    def __init__(self, count: int) -> None:
        self.images, self.count = torch.rand(16, 3, 224, 224), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.images[index % 16], index


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


class Arrays(data.Dataset[Any]):
    """1 GB in arrays of 4 MB."""

    def __init__(self) -> None:
        self.arrays = [torch.full((1 << 20,), float(number)) for number in range(256)]

    def __len__(self) -> int:
        return 2_000

    def __getitem__(self, index: int) -> Any:
        array = self.arrays[index % len(self.arrays)]
        return array[index : index + 1_000], array.sum()


def trainer() -> Callable[[Any], object]:
    """A step of about half a millisecond."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    rows = torch.rand(64, 64)
    return lambda _: model(rows).sum().backward()


def glance() -> Callable[[Any], object]:
    """A step that takes what is first in a batch, and nothing else."""
    return lambda batch: batch[0]


class Workload(NamedTuple):
    make: Callable[[], Any]
    batch_size: int
    step: Callable[[], Callable[[Any], object]] = trainer


WORKLOADS: dict[str, Workload] = {
    "JPEG decode and resize": Workload(lambda: Jpegs(800), 32),
    "heavier decode": Workload(lambda: Jpegs(300, (768, 1024)), 32),
    "tokenizing in Python": Workload(lambda: Sources(600), 32),
    "tiny tensors": Workload(lambda: Tiny(40_000), 32, glance),
    "arrays in memory": Workload(lambda: data.TensorDataset(torch.rand(100_000, 64)), 256, glance),
    "batches of 18 MB": Workload(lambda: Large(32 * 60), 32, glance),
    "reads that wait 20 ms": Workload(lambda: Remote(400), 16),
    "uneven samples": Workload(lambda: Uneven(600), 16),
}


class Epoch(NamedTuple):
    """Seconds of an epoch, to its first batch, and of a step in the middle; processor seconds."""

    wall: float
    first: float
    step: float
    cpu: float


def cpu_s() -> float:
    """Processor seconds of this program and of its processes, those that have ended included."""
    me = psutil.Process()
    total = sum(me.cpu_times()[:4])
    for child in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])
    return float(total)


def epoch(loader: Iterable[Any], step: Callable[[Any], object]) -> Epoch:
    """One epoch of a consumer with a step of its own."""
    cpu, began, first, steps = cpu_s(), time.perf_counter(), 0.0, []
    for batch in loader:
        got = time.perf_counter()
        first = first or got - began
        step(batch)
        steps.append(time.perf_counter() - got)
    wall = time.perf_counter() - began
    return Epoch(wall, first, statistics.median(steps), cpu_s() - cpu)


def spdl_of(dataset: Any, batch_size: int) -> Iterator[Any]:
    """Batches by a pipeline of SPDL's: a stage with two threads, to which a batch is one item."""
    from spdl.pipeline import PipelineBuilder

    def make(first: int) -> Any:
        stop = min(first + batch_size, len(dataset))
        return data.default_collate([dataset[index] for index in range(first, stop)])

    builder = PipelineBuilder().add_source(range(0, len(dataset), batch_size))
    builder.pipe(make, concurrency=2, output_order="input").add_sink(3)
    pipeline = builder.build(num_threads=2)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator(timeout=60)


def memory_bytes() -> int:
    """Of this program and its processes; what they share counts once."""
    me = psutil.Process()
    return sum(each.memory_full_info().pss for each in (me, *me.children(recursive=True)))


def measure_memory() -> None:
    """What an epoch over 1 GB of arrays adds: while the workers are there."""
    dataset = Arrays()
    ways: dict[str, Callable[[], Any]] = {
        "torch 2": lambda: data.DataLoader(dataset, 16, num_workers=2, persistent_workers=True),
        "2 threads": lambda: DataLoader(dataset, 16, num_workers=2, workers="thread"),
        "2 processes": lambda: DataLoader(dataset, 16, num_workers=2, persistent_workers=True),
        "auto": lambda: DataLoader(dataset, 16),
    }
    print("\n1 GB of arrays: what an epoch adds to the memory")
    found = {}
    for way, make in ways.items():
        before, loader = memory_bytes(), make()
        batches = iter(loader)
        for _ in batches:
            added = memory_bytes() if next(batches, None) is None else 0
        found[way] = max(added, memory_bytes()) - before
        ratio = found[way] / found["torch 2"]
        print(f"  {way:18} {found[way] / 2**20:8.0f} MiB  {ratio:6.2f} of torch 2")
        del batches, loader
        gc.collect()


def measure(name: str, rounds: int) -> tuple[dict[str, list[Epoch]], list[str]]:
    make, batch_size, make_step = WORKLOADS[name]
    step, found, plans = make_step(), dict[str, list[Epoch]](), list[str]()
    for _ in range(rounds):
        dataset = make()
        for workers in TORCH:
            loader: Any = data.DataLoader(dataset, batch_size, num_workers=workers)
            found.setdefault(f"torch {workers}", []).append(epoch(loader, step))
        with contextlib.suppress(ImportError):
            of_spdl = epoch(spdl_of(dataset, batch_size), step)
            found.setdefault("spdl", []).append(of_spdl)
        for way, kind in OURS.items():
            loader = DataLoader(dataset, batch_size, num_workers=2, workers=kind)  # type: ignore[arg-type]
            found.setdefault(way, []).append(epoch(loader, step))
        ours: Any = DataLoader(dataset, batch_size)
        found.setdefault("auto, first epoch", []).append(epoch(ours, step))
        epoch(ours, step)
        found.setdefault("auto", []).append(epoch(ours, step))
        plans.append(str(ours.explain()).splitlines()[0])
    batch = next(iter(data.DataLoader(dataset, batch_size)))
    alone = [epoch([batch] * 200, step) for _ in range(rounds)]
    found["no loader"] = alone
    return found, plans


def show(name: str, found: dict[str, list[Epoch]], plans: list[str]) -> None:
    medians = {
        way: Epoch(*(statistics.median(each) for each in zip(*runs, strict=True)))
        for way, runs in found.items()
    }
    alone = medians.pop("no loader").step
    best = min((f"torch {workers}" for workers in TORCH), key=lambda way: medians[way].wall)
    ours = (way for way in medians if not way.startswith(("torch", "spdl")))
    own = min(ours, key=lambda way: medians[way].wall)
    print(f"\n{name}: torch's best is {best}, ours {own}")
    for way, each in medians.items():
        print(
            f"  {way:18} {each.wall:8.3f} s  {medians[best].wall / each.wall:6.2f} times the best"
            f"  first batch {each.first * 1e3:7.1f} ms  step {each.step / alone:5.2f} of alone"
            f"  processor {each.cpu:6.2f} s"
        )
    for plan in plans:
        print(f"  {plan}")
    compare(medians)


def compare(medians: dict[str, Epoch]) -> None:
    """The ratios that are asked for, beside those in the table."""
    auto, processes = medians["auto"], medians["2 processes"]
    fixed = min(medians[way].wall for way in OURS)
    workers = min((medians[f"torch {n}"] for n in TORCH if n), key=lambda each: each.wall)
    inline, two, first = medians["torch 0"], medians["torch 2"], medians["auto, first epoch"]
    print(
        f"  auto takes {auto.wall / fixed:.2f} of ours with 2 workers; processes are "
        f"{workers.wall / processes.wall:.2f} times torch's with workers, with "
        f"{processes.cpu / workers.cpu:.2f} of the processor time\n"
        f"  first batch of auto: {two.first / first.first:.2f} times sooner than torch 2, "
        f"{first.first / inline.first:.2f} of torch 0"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="workloads with this text in their name")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    for name in WORKLOADS:
        if options.only is None or options.only in name:
            show(name, *measure(name, options.rounds))
    if options.only is None or options.only in "memory":
        measure_memory()


if __name__ == "__main__":
    main()
