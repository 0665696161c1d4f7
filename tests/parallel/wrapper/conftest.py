# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    """Double precision, the same random numbers in each test, and no replicas that wait for the collector after it."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
    gc.collect()
