# SPDX-License-Identifier: BSD-3-Clause
"""What a program has set is set where its items run, for each function what was set at its call."""

import contextvars
import csv
import decimal
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import teamster as ts
from teamster.spine.workers.library_state import (
    SETTINGS,
    Scene,
    dump,
    library_part,
    load,
    set_all,
    since,
    take,
    unsendable,
)

VARIABLE = contextvars.ContextVar("VARIABLE", default=0)
BACKENDS = ["serial", "thread", "process"]


def look(_: object) -> tuple[Any, ...]:
    numbers = (
        decimal.getcontext().prec,
        sys.getrecursionlimit(),
        csv.field_size_limit(),
        socket.getdefaulttimeout(),
    )
    arrays = np.geterr()["over"], np.get_printoptions()["precision"]
    return *numbers, *arrays, Path.cwd(), os.environ.get("TEAMSTER_TEST"), time.tzname[0]


def look_it_up(_: object) -> int:
    return VARIABLE.get()


def a_third(number: int) -> decimal.Decimal:
    time.sleep(0.003)
    return decimal.Decimal(number) / 3


def prepare() -> None:
    decimal.getcontext().prec = 11
    np.seterr(over="raise")


@pytest.fixture
def unchanged() -> Iterator[None]:
    """All that a test sets is set back."""
    before = take()
    context = decimal.getcontext().copy()
    yield
    set_all(since(take(), before))
    decimal.setcontext(context)


@pytest.fixture(params=BACKENDS)
def pool(request: pytest.FixtureRequest, unchanged: None) -> Iterator[ts.Pool]:
    with ts.Pool(request.param, workers=2) as pool:
        yield pool


def test_all_workers_that_auto_takes_count_with_as_many_digits(unchanged: None) -> None:
    decimal.getcontext().prec = 60
    assert ts.map(a_third, range(160)) == [decimal.Decimal(number) / 3 for number in range(160)]


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_torchs_default_type(backend: Any, unchanged: None) -> None:
    torch = pytest.importorskip("torch")

    def kind(_: int) -> str:
        time.sleep(0.003)
        return str(torch.ones(1).dtype)

    before = torch.get_default_dtype()
    with ts.Pool(backend, workers=2) as pool:
        for set_to in (torch.float64, torch.float32):
            torch.set_default_dtype(set_to)
            try:
                assert set(pool.map(kind, range(60))) == {str(set_to)}
            finally:
                torch.set_default_dtype(before)


def test_each_call_finds_what_is_set_at_its_time(
    pool: ts.Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = look(0)
    assert set(pool.map(look, range(4))) == {usual}
    decimal.getcontext().prec = 60
    sys.setrecursionlimit(3_210)
    csv.field_size_limit(999)
    socket.setdefaulttimeout(7)
    np.seterr(over="raise")
    np.set_printoptions(precision=3)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("TEAMSTER_TEST", "x")
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        changed = look(0)
        assert (changed[0], changed[4], changed[-1]) == (60, "raise", "JST")
        assert set(pool.map(look, range(4))) == {changed}
    set_all(since(library_part(take()), {}))
    time.tzset()
    assert set(pool.map(look, range(4))) == {look(0)} == {usual}


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_what_the_initializer_sets_stays_set(backend: Any, unchanged: None) -> None:
    """It is the more special one of the two."""
    with ts.Pool(backend, workers=2, initializer=prepare) as pool:
        assert {(seen[0], seen[4]) for seen in pool.map(look, range(4))} == {(11, "raise")}
        decimal.getcontext().prec = 60
        assert {(seen[0], seen[4]) for seen in pool.map(look, range(4))} == {(11, "raise")}


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_context_variables_of_the_initializer_reach_the_tasks(backend: Any) -> None:
    with ts.Pool(backend, workers=2, initializer=VARIABLE.set, initargs=(5,)) as pool:
        assert pool.map(look_it_up, range(3)) == [5] * 3


def test_two_calls_at_a_time_have_each_its_own(unchanged: None) -> None:
    with ts.Pool("process", workers=1) as pool:
        usual = pool.imap(look, range(40), chunksize=1)
        first = next(usual)
        decimal.getcontext().prec = 60
        other = pool.imap(look, range(40), chunksize=1)
        pairs = list(zip(usual, other, strict=False))
    assert first[0] == 28
    assert {(one[0], two[0]) for one, two in pairs} == {(28, 60)}


def test_nothing_travels_where_nothing_was_set(unchanged: None) -> None:
    state = take()
    assert take() is state
    assert dump(since(state, take())) == b""


def test_what_does_not_pickle_is_named_and_the_rest_travels() -> None:
    state = {
        ("csv's limit of a field", "field_size_limit"): 5,
        ("numpy.seterr", "call"): threading.Lock(),
    }
    assert unsendable(state) == "numpy.seterr"
    assert load(dump(state)) == {("csv's limit of a field", "field_size_limit"): 5}
    assert unsendable({}) == ""


CHANGES: dict[str, Any] = {
    "getrecursionlimit": 2_345, "get_int_max_str_digits": 5_000, "getswitchinterval": 0.25,
    "enabled": False, "thresholds": (9, 9, 9), "size": 1 << 20, "getdefaulttimeout": 3.5,
    "field_size_limit": 77, "firstweekday": 2, "tempdir": "/var/tmp", "divide": "raise",
    "getbufsize": 16_384, "precision": 2, "prec": 99,
}  # fmt: skip


def test_every_row_is_set_and_taken_back(unchanged: None) -> None:
    """Of the libraries that are loaded here."""
    import calendar  # noqa: F401
    import tempfile  # noqa: F401

    csv.register_dialect("semicolon", delimiter=";")
    pytest.importorskip("mpmath")
    wanted = {
        (row.title, name): CHANGES[name]
        for row in SETTINGS
        for name in row.usual
        if name in CHANGES and row.module in sys.modules
    }
    before, scene = take(), Scene(None)
    scene.enter(wanted)
    now = library_part(take())
    scene.enter({})
    assert {key: now[key] for key in wanted} == wanted
    assert now["csv's dialects", "semicolon"][0] == ";"
    csv.unregister_dialect("semicolon")
    assert len(wanted) > 12
    assert take().keys() == before.keys() - {("csv's dialects", "semicolon")}


@pytest.mark.parametrize("backend", BACKENDS)
def test_modes_of_torch_last_as_long_as_in_the_program(backend: Any) -> None:
    torch = pytest.importorskip("torch")

    def look(_: int) -> tuple[Any, ...]:
        import torch

        return (
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            torch.ones(1).is_inference(),
            torch.is_autocast_cache_enabled(),
            torch.is_anomaly_enabled(),
        )

    pool = ts.Pool(backend, workers=2)
    usual = [(False, True, False, True, False)] * 2
    assert pool.map(look, range(2)) == usual
    with torch.inference_mode():
        assert pool.map(look, range(2)) == [(True, False, True, True, False)] * 2
        with torch.inference_mode(False):
            assert pool.map(look, range(2)) == usual
    assert pool.map(look, range(2)) == usual
    with torch.no_grad(), torch.autocast("cpu", cache_enabled=False):
        assert pool.map(look, range(2)) == [(False, False, False, False, False)] * 2
    torch.autograd.set_detect_anomaly(True)
    try:
        assert pool.map(look, range(2)) == [(False, True, False, True, True)] * 2
    finally:
        torch.autograd.set_detect_anomaly(False)
    assert pool.map(look, range(2)) == usual
    pool.close()
