# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collected(doubles: None) -> Iterator[None]:
    """No replicas that wait for the collector after a test."""
    yield
    gc.collect()
