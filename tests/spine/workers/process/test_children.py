# SPDX-License-Identifier: BSD-3-Clause
"""What one thread does to a child while another sees it end."""

from __future__ import annotations

import threading

import pytest

import teamster as ts
from tests.tasks.targets import me


def test_one_that_is_paused_in_the_middle_of_its_end_is_let_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its descriptor was looked at no more, and it did not count as gone yet."""
    process = ts.spawn(lambda: me().recv())
    child, children = process._call.child, process._keeper._children
    raised: list[Exception] = []

    def pause() -> None:
        try:
            children.pause(child, True)
        except Exception as error:
            raised.append(error)

    other = threading.Thread(target=pause)
    unregister = children._poller.unregister

    def unregister_while_paused(descriptor: int) -> None:
        unregister(descriptor)
        other.start()
        other.join(0.1)  # it ends now, or has to wait for what this thread holds

    monkeypatch.setattr(children._poller, "unregister", unregister_while_paused)
    process.send("end")
    process.join()
    other.join(20)
    assert (raised, other.is_alive()) == ([], False)
