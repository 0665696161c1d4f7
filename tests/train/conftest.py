# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import pytest

from teamster.train.strategies.ddp import Ranks
from teamster.train.strategies.shared_model import Survey


@pytest.fixture(autouse=True)
def ranks_are_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ranks do their rows from the first step on: else a short test would see none."""
    start = Ranks.start

    def start_and_wait(self: Ranks, survey: Survey | None = None) -> None:
        start(self, survey)
        self.have_come(60.0)

    monkeypatch.setattr(Ranks, "start", start_and_wait)
