# SPDX-License-Identifier: BSD-3-Clause
"""Bars are where the data says, in the colour of their kind."""

from __future__ import annotations

import re
import sys
import threading
from typing import Any
from xml.etree import ElementTree

import pytest

from teamster.errors import UsageError
from teamster.spine.trace.columns import Row, Spans
from teamster.spine.trace.render.bars import COLOURS, bar_height, majorities
from teamster.spine.trace.render.picture import MOST_BARS, to_figure, to_picture
from teamster.spine.trace.ring import COMPUTE, KINDS, TRANSFER, USER, WAIT
from teamster.spine.trace.timeline import Curve, Lane, Mark, Timeline

pytest.importorskip("matplotlib")

from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

MS = 1_000_000
BEGIN = 863_000_000_000_000
ROWS: list[Row] = [
    (BEGIN, BEGIN + 100 * MS, -1, 1, 0, WAIT),
    (BEGIN + 200 * MS, BEGIN + 300 * MS, -1, 1, 2, USER),
    (BEGIN + 100 * MS, BEGIN + 900 * MS, 0, 1, 1, COMPUTE),
]
NAMES = ("", "work", "co$t_^ $x")
LANES = (
    Lane("process 0", "process", 0, 4711, Spans(ROWS)),
    Lane("caller $", "caller", -1, 1, Spans(ROWS[:1])),
)
FULL = Timeline(
    BEGIN,
    BEGIN + 1_000 * MS,
    1.7e9,
    NAMES,
    LANES,
    (
        Curve("GIL-held share", "share", ((BEGIN, 0.5), (BEGIN + 500 * MS, 0.7))),
        Curve("memory", "bytes", ((BEGIN, 5.0),)),
    ),
    (Mark(BEGIN + 500 * MS, "died $5", "process 0"), Mark(BEGIN + 900 * MS, "changed", "")),
    lost=3,
)


def collections(figure: Any, group: int = 0) -> dict[str, PolyCollection]:
    return {
        each.get_label(): each
        for each in figure.axes[2 * group + 1].collections
        if isinstance(each, PolyCollection)
    }


def boxes(collection: PolyCollection) -> list[tuple[float, ...]]:
    return [
        tuple(round(float(each), 9) for each in path.get_extents().extents)
        for path in collection.get_paths()
    ]


def box(left: float, right: float, lane: int, depth: int, kind: int) -> tuple[float, ...]:
    half = bar_height(depth, kind) / 2
    return tuple(round(each, 9) for each in (left, lane - half, right, lane + half))


def test_bars_are_where_the_data_says() -> None:
    found = collections(to_figure([("process(1)", FULL)]))
    assert boxes(found["compute 0"]) == [box(0.1, 0.9, 0, 0, COMPUTE)]
    assert boxes(found["span 1"]) == [box(0.2, 0.3, 0, 1, USER)]
    assert boxes(found["wait 0"]) == [box(0.0, 0.1, 0, 0, WAIT), box(0.0, 0.1, 1, 0, WAIT)]
    assert found["span 1"].get_zorder() > found["compute 0"].get_zorder()


def test_bars_have_the_colour_of_their_kind() -> None:
    assert list(COLOURS) == list(KINDS)
    for label, collection in collections(to_figure([("", FULL)])).items():
        assert [to_hex(each) for each in collection.get_facecolor()] == [
            COLOURS[label.split()[0]].lower()
        ]


def test_the_legend_tells_the_kinds_that_occur() -> None:
    figure = to_figure([("", FULL)], title="a $ title")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "compute",
        "wait",
        "span",
    ]
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "a $ title"
    assert "3 spans" in texts[1]


def test_lanes_and_marks_are_labelled() -> None:
    axes = to_figure([("", FULL)]).axes[1]
    assert sorted(label.get_text() for label in axes.get_yticklabels()) == ["caller $", "process 0"]
    assert {"died $5", "changed"} <= {text.get_text() for text in axes.texts}
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.5, 0.5], [0.9, 0.9]]


def test_thin_bars_are_seen() -> None:
    rows: list[Row] = [(0, 1, 0, 1, 0, COMPUTE)]
    figure = to_figure(
        [("", Timeline(0, 10**9, 0.0, ("",), (Lane("", "serial", 0, 1, Spans(rows)),)))]
    )
    ((left, _, right, _),) = boxes(collections(figure)["compute 0"])
    pixels = figure.axes[1].transData.transform([(left, 0), (right, 0)])
    assert 0.4 < pixels[1][0] - pixels[0][0] < 1.1


def test_timelines_share_the_seconds() -> None:
    short = Timeline(BEGIN + 7, BEGIN + 7 + 500 * MS, 0.0, NAMES, LANES[:1])
    figure = to_figure([("one", short), ("two", FULL)])
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 1.0)}
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        "one   500 ms",
        "two   1 s",
    ]
    assert boxes(collections(figure, 1)["compute 0"]) == [box(0.1, 0.9, 0, 0, COMPUTE)]


def test_of_many_lanes_some_are_labelled_and_the_caller_is() -> None:
    lanes = tuple(Lane(f"process {n}", "process", n, 1, Spans(ROWS)) for n in range(64))
    axes = to_figure([("", Timeline(BEGIN, BEGIN + 10**9, 0.0, NAMES, (*lanes, LANES[1])))]).axes[1]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) <= 33
    assert {"process 0", "caller $"} <= set(labels)


def many(count: int) -> Timeline:
    rows: list[Row] = [
        (n * 1_000, n * 1_000 + 900, n, 1, 0, TRANSFER if n % 3 == 0 else COMPUTE)
        for n in range(count)
    ]
    return Timeline(0, count * 1_000, 0.0, ("",), (Lane("thread 0", "thread", 0, 1, Spans(rows)),))


def test_many_bars_are_drawn_by_the_pixel_and_stay_small() -> None:
    figure = to_figure([("", many(MOST_BARS + 1))])
    drawn = sum(len(each.get_paths()) for each in collections(figure).values())
    assert drawn < 2_000
    assert any("pixel" in text.get_text() for text in figure.texts)
    assert len(to_picture(figure, "svg")) < 1_000_000
    assert len(to_picture(to_figure([("", many(MOST_BARS))]), "svg")) < 3_000_000
    assert len(to_picture(to_figure([("", many(5_000))]), "svg")) < 3_000_000


def test_majorities_cover_what_was_done() -> None:
    rows: list[Row] = [
        (0, 30, -1, 1, 0, WAIT),
        (12, 15, -1, 1, 0, TRANSFER),
        (40, 60, 0, 1, 0, COMPUTE),
        (45, 55, -1, 1, 0, USER),
    ]
    found = majorities(Lane("", "thread", 0, 1, Spans(rows)), 0, 10.0, 6)
    assert found == [(0, 1, WAIT), (1, 2, TRANSFER), (2, 3, WAIT), (4, 6, COMPUTE), (4, 6, USER)]


@pytest.mark.parametrize("lanes", [(), (Lane("thread 0", "thread", 0, 1, Spans()),)])
@pytest.mark.parametrize("end_ns", [0, 10**9])
def test_an_empty_timeline_is_a_picture(lanes: tuple[Lane, ...], end_ns: int) -> None:
    figure = to_figure([("nothing", Timeline(0, end_ns, 0.0, ("",), lanes))])
    assert any("no spans" in text.get_text() for axes in figure.axes for text in axes.texts)
    assert to_picture(figure, "png").startswith(b"\x89PNG\r\n")


def test_pictures() -> None:
    figure = to_figure([("process(1)", FULL)], title="<&>")
    png = figure._repr_png_()  # type: ignore[attr-defined]  # what a notebook asks for
    assert png.startswith(b"\x89PNG\r\n")
    svg = to_picture(figure, "svg")
    assert svg.startswith(b"<?xml")
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    with pytest.raises(UsageError, match="'png' or an 'svg', not 'gif'"):
        to_picture(figure, "gif")
    with pytest.raises(UsageError, match="at least one"):
        to_figure([])


def test_pyplot_is_not_touched_and_threads_may_draw() -> None:
    before = "matplotlib.pyplot" in sys.modules
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(to_picture(to_figure([("", FULL)]), "png")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_without_matplotlib_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if re.match(r"matplotlib(\.|$)", name)]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UsageError,
        match=r"^a picture of a timeline needs matplotlib: pip install 'teamster\[plot\]'$",
    ):
        to_figure([("", FULL)])
