# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of spawned processes have them do."""

import teamster as ts


def me() -> ts.Parent:
    parent = ts.parent()
    assert parent is not None
    return parent


def echo() -> None:
    while (message := me().recv()) is not None:
        me().send(message)


def fail() -> None:
    raise ValueError("no luck")
