# SPDX-License-Identifier: BSD-3-Clause
"""What the processes of a loader take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.utils import data

from teamster.data import DataLoader


class Mapped(data.Dataset[Any]):
    """Each sample is the number of the file that the memory of the dataset's array is of."""

    def __init__(self) -> None:
        self.rows = torch.zeros(1_000_000)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        address = self.rows.data_ptr()
        for line in Path("/proc/self/maps").read_text().splitlines():
            begin, _, end = line.split()[0].partition("-")
            if int(begin, 16) <= address < int(end, 16):
                return int(line.split()[4]), os.getpid()
        raise AssertionError("it is nowhere")


def test_arrays_of_a_dataset_are_in_memory_once_for_all_processes() -> None:
    seen = set()
    loader = DataLoader(Mapped(), 8, num_workers=2, workers="process", persistent_workers=True)
    while len({process for _, process in seen}) < 2:
        for files, processes in loader:
            seen |= set(zip(files.tolist(), processes.tolist(), strict=True))
    assert len({file for file, _ in seen}) == 1
    assert 0 not in {file for file, _ in seen}  # the program's own memory
