# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import pytest

from teamster.data.sharing.preparing import Preparing
from teamster.data.sharing.window import Window
from teamster.errors import PoolClosed
from teamster.tasks.monitor import registry


@pytest.mark.parametrize("ends", [True, False])
def test_the_end_of_the_program_is_no_error_of_the_loader(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it ends the call under way, or closes the pool just before the next."""

    def closed() -> None:
        raise PoolClosed("it is closed")

    window = Window(4, lambda line: None)
    preparing = Preparing(None, window, None, {}, int)  # type: ignore[arg-type]  # not asked
    monkeypatch.setattr(registry, "_ends", ends)
    monkeypatch.setattr(preparing, "_make_all", closed)
    preparing._work()
    assert (window.error is None) is ends
    preparing._wake_read.close()
    preparing._wake_write.close()
