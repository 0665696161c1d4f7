# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import os
import threading

from teamster.machine.priority import give_way


def test_one_thread_gives_way_and_no_other() -> None:
    def own() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before, found = own(), list[int]()
    thread = threading.Thread(target=lambda: (give_way(), found.append(own())))
    thread.start()
    thread.join()
    assert found == [min(19, before + 15)]
    assert own() == before
