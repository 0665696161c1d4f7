# SPDX-License-Identifier: BSD-3-Clause
"""Keys, one by one."""

import pytest

from teamster.cli.top.terminal import Terminal, split_keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"", []),
        (b"qp w?", ["q", "p", " ", "w", "?"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),  # of a keypad in application mode
        (b"\t\r\n\x00\x7f", ["tab"]),
        (b"\x1b", []),
        (b"\x1b[", []),
        (b"\x1b[12", []),
        (b"\x1b[3~q", ["q"]),  # Delete
        (b"\x1b[1;5Aq", ["q"]),  # Ctrl and up
        (b"\x1bq", ["q"]),
        ("é".encode(), ["é"]),
        (b"\xff\xc3q", ["q"]),
    ],
)
def test_keys_are_told_apart(data: bytes, keys: list[str]) -> None:
    assert split_keys(data) == keys


def test_no_terminal_has_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with Terminal() as terminal:
        assert terminal.read(0.0) == []
    assert not terminal.stops
