# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The hint about replicas that wait for each other depends on what else the machine does.

    Those who test it ask for it.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:of [0-9]+ CPU replicas:UserWarning"))


@pytest.fixture
def doubles() -> Iterator[None]:
    """Double precision, and the same random numbers in each test."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
