# SPDX-License-Identifier: BSD-3-Clause
"""The page and the pictures, from figures that are made up."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from teamster.cli.lab.conducting import Lab, Result
from teamster.cli.lab.experiments import EXPERIMENTS
from teamster.cli.lab.report import to_page, write_report
from teamster.cli.lab.runs import Measured, Outcome, Sizes
from teamster.cli.ways import Run
from teamster.machine.gil import GilShare
from teamster.machine.machine import Machine
from teamster.spine.trace.columns import Spans
from teamster.spine.trace.timeline import Lane, Timeline

pytest.importorskip("matplotlib")

_VOID = {"meta", "link", "img", "br", "hr", "input"}
_WAYS = (
    ("serial", 1, 2.0),
    ("thread", 2, 1.96),
    ("thread", 4, 1.9),
    ("process", 2, 1.03),
    ("process", 4, 1.7),
    ("auto", 2, 1.25),
)


class Page(HTMLParser):
    """Checks that every element ends where it should, and keeps texts and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data"):
                self.addresses.append(value or "")
            if name == "id":
                assert value not in self.ids
                self.ids.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def lab(*results: Result) -> Lab:
    began = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return Lab(
        results,
        Machine.detect(),
        {"teamster": "0.1.0", "processor": "<fast>"},
        began,
        40.0,
        Sizes(1.5, 1),
    )


def outcome(name: str, case: int = 0) -> Outcome:
    spans = Spans([(0, 10**9, 0, 1, 1, 0)])
    timeline = Timeline(0, 2 * 10**9, 0.0, ("", "work"), (Lane("caller", "caller", -1, 1, spans),))
    ways = []
    for backend, workers, seconds in _WAYS:
        run = Run(
            backend,
            "process" if backend == "auto" else backend,
            workers,
            20,
            0,
            seconds,
            0.1,
            1.0,
            0,
        )
        way = backend if backend in ("serial", "auto") else f"{backend}({workers})"
        ways.append(
            Measured(
                way,
                run,
                (seconds,),
                0.0,
                "seen <first>",
                timeline,
                2.0 if backend == "process" else 1.0,
            )
        )
    return Outcome(
        EXPERIMENTS[name].cases[case], 20, 0.1, GilShare(0.99, 0.01, 300), 2.0, tuple(ways)
    )


def test_the_page_is_whole_and_loads_nothing() -> None:
    results = [Result(EXPERIMENTS[name], (outcome(name),)) for name in EXPERIMENTS]
    page = Page(
        to_page(lab(*results), {f"{name}-timelines.png": b"picture" for name in EXPERIMENTS})
    )
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= page.ids
    for experiment in EXPERIMENTS.values():
        assert experiment.title in page.text
        assert experiment.question in page.text


def test_every_way_and_figure_is_there() -> None:
    result = Result(EXPERIMENTS["loop"], (outcome("loop"),))
    text = Page(to_page(lab(result), {"loop-timelines.png": b""})).text
    for shown in (
        "serial",
        "thread(2)",
        "thread(4)",
        "process(2)",
        "process(4)",
        "auto: process(2)",
    ):
        assert shown in text
    for figure in ("2 s", "1.96 s", "1.9 s", "1.03 s", "1.7 s", "1.25 s", "1.94x", "1.18x"):
        assert figure in text
    assert "def loop(n: int) -> int:" in text
    assert "Args:" not in text  # the docstring is for readers of the source
    assert "process(2), 1.03 s" in text  # the closing table
    assert "82%" in text


def test_what_is_shown_cannot_be_html() -> None:
    page = to_page(
        lab(Result(EXPERIMENTS["loop"], (outcome("loop"),))), {"loop-timelines.png": b""}
    )
    assert "seen &lt;first&gt;" in page
    assert "&lt;fast&gt;" in page
    assert not re.search("<first>|<fast>", page)


def test_the_texts_follow_the_figures() -> None:
    usual = Result(EXPERIMENTS["loop"], (outcome("loop"),))
    odd = outcome("loop")
    fast = replace(odd.measured[1], run=replace(odd.measured[1].run, seconds=0.5))
    odd = replace(odd, measured=(odd.measured[0], fast, *odd.measured[2:]))
    first, second = (
        Page(to_page(lab(each), {"loop-timelines.png": b""})).text
        for each in (usual, Result(EXPERIMENTS["loop"], (odd,)))
    )
    assert "The fastest was process(2)" in first
    assert "The fastest was thread(2)" in second
    assert "Faster than expected: thread(2)" in second


def test_a_skipped_experiment_says_why(tmp_path: Path) -> None:
    files = write_report(lab(Result(EXPERIMENTS["dot"], (), "It needs numpy.")), tmp_path)
    assert [path.name for path in files] == ["index.html"]
    assert "Skipped. It needs numpy." in Page(files[0].read_text(encoding="utf-8")).text


def test_rounds_show_their_spread() -> None:
    usual = outcome("loop")
    loop = replace(usual.loop, rounds_s=(1.5, 2.0, 2.5))
    result = Result(EXPERIMENTS["loop"], (replace(usual, measured=(loop, *usual.measured[1:])),))
    text = Page(
        to_page(replace(lab(result), sizes=Sizes(3.5, 3)), {"loop-timelines.png": b""})
    ).text
    assert "1.5 s to 2.5 s" in text
    assert "Each way ran up to 3 times" in text


def test_each_experiment_has_its_pictures(tmp_path: Path) -> None:
    files = write_report(
        lab(Result(EXPERIMENTS["dot"], (outcome("dot"), outcome("dot", 1)))), tmp_path
    )
    names = ["dot.png", "dot-timelines-1.png", "dot-timelines-2.png"]
    assert [path.name for path in files[1:]] == names
    assert {path.read_bytes()[1:4] for path in files[1:]} == {b"PNG"}
