# SPDX-License-Identifier: BSD-3-Clause
"""What of a library the program has replaced."""

import functools
import json
import json.encoder
import textwrap
from typing import Any
from unittest.mock import Mock

import pytest

import teamster as ts
from teamster.spine.plan.safety.patches import origins, replaced


def shown(value: Any) -> str:
    sum(range(30_000))
    return json.dumps({"n": value})


def shortened(value: int) -> str:
    sum(range(30_000))
    return textwrap.shorten("a b c", 5 + value % 2)


@functools.wraps(textwrap.shorten)
def in_disguise(*arguments: Any) -> str:
    return "replaced"


@pytest.mark.parametrize(
    ("owner", "attribute", "value", "label"),
    [
        (json, "dumps", lambda value: "{}", "json:dumps"),
        (
            json.encoder.JSONEncoder,
            "encode",
            lambda self, value: "{}",
            "json.encoder:JSONEncoder.encode",
        ),
        (textwrap, "shorten", in_disguise, "textwrap:shorten"),
        (textwrap, "wrap", Mock(), "textwrap:wrap"),
    ],
)
def test_a_replacement_is_found(
    monkeypatch: pytest.MonkeyPatch, owner: Any, attribute: str, value: Any, label: str
) -> None:
    assert label not in replaced(1.0, ["json", "textwrap"])
    before = origins([label])
    monkeypatch.setattr(owner, attribute, value)
    after = replaced(1.0, ["json", "textwrap"])
    assert after[label] == origins([label])[label] != before[label]


@pytest.mark.parametrize(
    ("function", "owner", "attribute", "value"),
    [
        (shown, json.encoder.JSONEncoder, "encode", lambda self, value: "replaced"),
        (shortened, textwrap, "shorten", in_disguise),
    ],
)
def test_auto_stays_where_the_replacement_is(
    monkeypatch: pytest.MonkeyPatch, function: Any, owner: Any, attribute: str, value: Any
) -> None:
    monkeypatch.setattr(owner, attribute, value)
    with ts.Pool(allow=("serial", "process")) as pool:
        assert pool.map(function, range(800)) == ["replaced"] * 800
        assert pool.plan.choice == "serial"
