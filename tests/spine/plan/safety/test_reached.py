# SPDX-License-Identifier: BSD-3-Clause
"""Which data of libraries a function reaches, and whether a new process has the same."""

import collections.abc
import http.client
import json
import keyword
import math
import mimetypes
import re
import reprlib
import shutil
import string
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

import teamster as ts
from teamster.spine.plan.safety.captures import Captures
from teamster.spine.plan.safety.library_data import changed, loaded_beside, states
from teamster.spine.plan.safety.reached import library_states


class Stack:
    def __len__(self) -> int:
        return 1


class Own(http.client.HTTPConnection):
    pass


def join(item: int) -> str:
    return urllib.parse.urljoin("s3://b/a/b", str(item))


def show(item: int) -> str:
    return reprlib.repr(list(range(20)))


def write(item: int) -> bytes:
    return ET.tostring(ET.Element("{http://zz}a"))


def archives(item: int) -> bool:
    return "zzz" in dict(shutil.get_archive_formats())


def circle(item: int) -> float:
    return math.pi * item


def most_headers(item: int) -> int:
    return http.client._MAXHEADERS


def connect(item: int) -> int:
    return Own("x").debuglevel


def is_sequence(item: int) -> bool:
    return isinstance(Stack(), collections.abc.Sequence)


def is_keyword(item: int) -> bool:
    return "nope" in keyword.kwlist


def extra(item: int) -> Any:
    return getattr(string.Formatter, "extra", None)


def search(item: int) -> Any:
    return re.sub("a(.)", r"\1", f"a{item}")


def guess(item: int) -> Any:
    return mimetypes.guess_type("a.png")


def decode(item: int) -> Any:
    return json.loads(json.dumps([item]))


def seen(function: Callable[..., Any]) -> dict[str, int | None]:
    return library_states(Captures(function), 5.0)


def found_elsewhere(function: Callable[..., Any]) -> str:
    """What a new process has otherwise."""
    here = seen(function)
    beside = loaded_beside(here)
    return ts.map(lambda _: changed(here, beside), [0], backend="process", workers=1)[0]


@pytest.mark.parametrize(
    ("function", "change", "name"),
    [
        (join, lambda: urllib.parse.uses_netloc.append("s3"), "urllib.parse.uses_netloc"),
        (show, lambda: setattr(reprlib.aRepr, "maxlist", 2), "reprlib.repr.__self__"),
        (
            write,
            lambda: ET.register_namespace("zz", "http://zz"),
            "xml.etree.ElementTree._namespace_map",
        ),
        (
            archives,
            lambda: shutil.register_archive_format("zzz", archives, [], "z"),
            "shutil._ARCHIVE_FORMATS",
        ),
        (circle, lambda: setattr(math, "pi", 3), "math.pi"),
        (most_headers, lambda: setattr(http.client, "_MAXHEADERS", 7), "http.client._MAXHEADERS"),
        (
            connect,
            lambda: setattr(http.client.HTTPConnection, "debuglevel", 1),
            "http.client.HTTPConnection",
        ),
        (
            is_sequence,
            lambda: collections.abc.Sequence.register(Stack),
            "collections.abc.Sequence",
        ),
        (is_keyword, lambda: keyword.kwlist.append("nope"), "keyword.kwlist"),
        (extra, lambda: setattr(string.Formatter, "extra", 1), "string.Formatter"),
    ],
)
def test_what_the_program_has_put_into_a_library_is_seen(
    function: Callable[..., Any], change: Callable[[], Any], name: str
) -> None:
    """In a program of its own, since a registration cannot be taken back."""

    def program() -> tuple[str, str]:
        before = found_elsewhere(function)
        change()
        return before, found_elsewhere(function)

    with ts.spawn(program) as process:
        before, after = process.result(timeout=60)
    assert before == ""
    assert name in (after, f"collections.abc.{after.rpartition('.')[2]}")


@pytest.mark.parametrize("function", [search, guess, decode, write, join, is_sequence])
def test_what_a_call_fills_is_no_difference(function: Callable[..., Any]) -> None:
    for item in range(3):
        function(item)
    assert found_elsewhere(function) == ""


def test_what_is_reached_changes_a_table_itself_so_it_does_not_count() -> None:
    assert "re:_cache" not in seen(search)
    assert "mimetypes:_db" not in seen(guess)
    assert "json.decoder:JSONDecoder" in seen(decode)


def test_plain_values_are_told_apart_and_the_order_of_a_table_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label = "keyword:kwlist"
    before = states([label])
    monkeypatch.setattr(keyword, "kwlist", keyword.kwlist[::-1])
    assert states([label]) == before
    monkeypatch.setattr(keyword, "kwlist", [*keyword.kwlist, None])
    assert states([label]) != before
    monkeypatch.setattr(keyword, "kwlist", list(range(100_000)))
    assert states([label]) == {label: None}  # too large to tell


def test_code_of_libraries_in_a_table_depends_on_what_was_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label = "shutil:_ARCHIVE_FORMATS"
    before = states([label])
    monkeypatch.setitem(shutil._ARCHIVE_FORMATS, "b", json.dumps)  # type: ignore[attr-defined]
    assert states([label]) == before
    monkeypatch.setitem(shutil._ARCHIVE_FORMATS, "b", archives)  # type: ignore[attr-defined]
    assert states([label]) != before
