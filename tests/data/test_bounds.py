# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that grow: descriptors, segments and memory do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from teamster.data import bounds
from teamster.data.bounds import InFlight
from tests.conftest import RunScript

MANY_BATCHES = """
import os, resource, sys
import torch
from teamster.data import DataLoader

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


class Samples:
    def __len__(self):
        return 40_000

    def __getitem__(self, index):
        if sys.argv[1] == "ragged":
            return torch.full((4096 if index % 40 == 0 else 64,), float(index))
        return torch.full((2048,), float(index)), index


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def mappings():
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)


collate = list if sys.argv[1] == "ragged" else None
loader = DataLoader(Samples(), 16, num_workers=2, workers="process", collate_fn=collate)
seen = kept = 0
keeping = []
for number, batch in enumerate(loader):
    seen += len(batch) if collate else len(batch[1])
    if number % 10 == 0 and len(keeping) < 200:
        keeping.append(batch)
    if number == 500:
        before = descriptors(), mappings()
assert seen == 40_000, seen
after = descriptors(), mappings()
assert after[0] <= before[0] + 8, (before, after)
assert after[1] <= before[1] + 400, (before, after)
if not collate:
    assert all((rows[:, 9] == labels).all() for rows, labels in keeping)
"""


@pytest.mark.parametrize("what", ["placed", "ragged"])
def test_descriptors_do_not_grow_with_batches(run_script: RunScript, what: str) -> None:
    script = run_script(MANY_BATCHES, what, timeout=120)
    assert script.returncode == 0, script.stderr


GROWTH = """
import sys
import torch
from teamster.data import DataLoader


class Samples:
    def __len__(self):
        return 20_000

    def __getitem__(self, index):
        return torch.full((16,), float(index))


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


loader = DataLoader(Samples(), 20, num_workers=1, workers=sys.argv[1])
sizes = []
for epoch in range(10):
    assert sum(len(batch) for batch in loader) == 20_000
    sizes.append(resident())
assert sizes[-1] - sizes[2] < 16 << 20, sizes
"""


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_memory_does_not_grow_with_epochs(run_script: RunScript, kind: str) -> None:
    script = run_script(GROWTH, kind, timeout=120)
    assert script.returncode == 0, script.stderr


def test_a_share_of_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "available_bytes", lambda: 400 << 20)
    bound = InFlight("auto")
    bound.learn(torch.zeros(10))
    assert bound.of(64) == 64
    bound.learn({"x": torch.zeros(5 << 20)})  # 20 MiB
    assert bound.of(64) == 5
    bound.learn([torch.zeros(50 << 20)])
    assert bound.of(64) == 2
    assert bound.of(1) == 1


def test_what_is_no_tensor_counts_for_nothing() -> None:
    bound = InFlight(100)
    batch: Any = ["text", {"y": 3}]
    bound.learn(batch)
    assert bound.of(7) == 7
