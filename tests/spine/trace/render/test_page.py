# SPDX-License-Identifier: BSD-3-Clause
"""The page: what stands in it."""

from __future__ import annotations

import re

import pytest

from teamster.spine.trace.columns import Spans
from teamster.spine.trace.render.page import MOST_SPANS, to_html
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.timeline import Lane, Timeline
from tests.spine.trace.render.timelines import EVIL, small


def test_the_same_timeline_is_the_same_page() -> None:
    assert to_html([("run", small())], title="run") == to_html([("run", small())], title="run")


def test_nothing_is_loaded_from_outside() -> None:
    page = to_html([("run", small())], title="run")
    linked = re.findall(
        r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)""", page[: page.index('id="data"')]
    )
    assert [each for each in linked if not each.startswith("data:")] == []
    assert re.findall(r"@import|url\(", page[: page.index("</style>")]) == []
    assert "default-src 'none'" in page


def test_words_are_escaped() -> None:
    page = to_html([(EVIL, small())], title=EVIL, table=[["a"], [EVIL]], notes=[EVIL])
    assert EVIL not in page
    assert page.count("</script>") == 3


def test_what_is_left_out_is_said() -> None:
    assert "Not shown as it was" not in to_html([("run", small())], title="run")
    lossy = Timeline(0, 10**9, 0.0, ("",), (), lost=1_234)
    assert "1,234 spans were too short" in to_html([("run", lossy)], title="run")


def test_plan_and_report_can_be_read_without_a_script() -> None:
    page = to_html([("run", small())], title="run")
    assert "process(2): measured &lt;fastest&gt;" in page
    assert "items        5 in 1 s" in page
    assert "Mike Bostock" in page  # the licence of the libraries goes where they go


def test_a_page_needs_a_timeline() -> None:
    with pytest.raises(ValueError, match="at least one timeline"):
        to_html([], title="none")


def test_a_long_run_stays_a_small_page() -> None:
    rows = [(n * 10, n * 10 + 9, n, 1, 1, COMPUTE) for n in range(MOST_SPANS + 1)]
    timeline = Timeline(
        0, len(rows) * 10, 0.0, ("", "work"), (Lane("process 0", "process", 0, 1, Spans(rows)),)
    )
    page = to_html([("run", timeline)], title="run")
    assert "drawn together with their neighbours" in page
    assert len(page) < 400_000
