# SPDX-License-Identifier: BSD-3-Clause
"""The page: what a browser makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from teamster.spine.trace.columns import Spans
from teamster.spine.trace.render.page import to_html
from teamster.spine.trace.timeline import Lane, Timeline
from tests.spine.trace.render.timelines import EVIL, many, small

PIXEL = """([x, y]) => {
    teamster.drawNow();
    const [column, row] = [x, y].map((each) => Math.floor(each * devicePixelRatio));
    const { data } = teamster.canvas.getContext('2d').getImageData(column, row, 1, 1);
    return '#' + [...data].slice(0, 3).map((part) => part.toString(16).padStart(2, '0')).join('');
}"""

# Chromium itself is to leave the network alone.
QUIET = ["quic", "background-networking", "component-update", "sync"]
ARGS = ["--no-sandbox", "--no-first-run", "--disable-gpu", *(f"--disable-{each}" for each in QUIET)]


@pytest.fixture
def no_leftovers() -> None:
    """Instead of the one for all tests: a browser starts and ends processes when it likes.

    `browser` looks after them.
    """


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for all; when it is closed nothing of it is left."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if chromium is None:
        pytest.skip("there is no Chromium on PATH")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=ARGS)
        yield started
        started.close()
    left = [child for child in psutil.Process().children(recursive=True) if "chrom" in child.name()]
    assert psutil.wait_procs(left, timeout=5)[1] == []


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A function that writes a page, opens it, and waits for it.

    In the end there was no error and no request.
    """
    trouble: list[str] = []
    contexts = []

    def open_it(html: str, **options: Any) -> Any:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(
            **{"viewport": {"width": 1200, "height": 800}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.route(
            "**/*",
            lambda route: (
                route.continue_() if route.request.url == path.as_uri() else refuse(route)
            ),
        )
        page.on(
            "console",
            lambda message: trouble.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(path.as_uri())
        page.evaluate("teamster.ready")
        return page

    def refuse(route: Any) -> None:
        trouble.append(f"asked for {route.request.url}")
        route.abort()

    yield open_it
    for context in contexts:
        context.close()
    assert trouble == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    return open_page(to_html([("run", small())], title="A run"))


def rect(page: Any, lane: int, span: int, group: int = 0) -> dict[str, float]:
    found: dict[str, float] = page.evaluate(f"teamster.rectOf({group}, {lane}, {span})")
    return found


def pixel(page: Any, x: float, y: float) -> str:
    """The colour that is on the canvas, as #rrggbb."""
    return str(page.evaluate(PIXEL, [x, y]))


def below(box: dict[str, float]) -> tuple[float, float]:
    """In the bar, in the middle, and low enough that no letter is there."""
    return box["x"] + box["width"] / 2, box["y"] + box["height"] - 2


def move_to(page: Any, x: float, y: float) -> None:
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)


def colour(page: Any, kind: str) -> str:
    return str(page.evaluate(f"teamster.colour('{kind}')"))


# Kinds of the spans of each lane, in the order of begin.
KNOWN = (
    ("compute", "transfer"),
    ("initialise", "compute", "span", "wait", "serialise", "compute"),
    ("compute",),
)


def test_bars_stand_where_the_data_says(page: Any) -> None:
    plot = page.evaluate("teamster.plot()")
    box = rect(page, 1, 5)
    width = plot["right"] - plot["left"]
    assert box["x"] == pytest.approx(plot["left"] + 0.5 * width)
    assert box["width"] == pytest.approx(0.4 * width)
    for lane, kinds in enumerate(KNOWN):
        for span, kind in enumerate(kinds):
            assert pixel(page, *below(rect(page, lane, span))) == colour(page, kind), (lane, span)


def test_gaps_are_empty_waits_thin_and_nested_spans_below(page: Any) -> None:
    wait, next_to = rect(page, 1, 3), rect(page, 1, 1)
    assert pixel(page, wait["x"] + wait["width"] / 2, wait["y"] + 1) == colour(page, "wait")
    assert wait["height"] < next_to["height"] / 3
    empty = colour(page, "track")
    assert pixel(page, wait["x"] + wait["width"] / 2, wait["y"] - 5) == empty
    before = rect(page, 1, 4)
    assert pixel(page, before["x"] + before["width"] * 1.5, before["y"] + 4) == empty
    outer, inner = rect(page, 1, 1), rect(page, 1, 2)
    assert inner["y"] >= outer["y"] + outer["height"]
    assert inner["height"] < outer["height"]


def test_the_wheel_zooms_where_the_pointer_is(page: Any) -> None:
    box = rect(page, 1, 5)
    x, y = below(box)
    move_to(page, x, y)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(100)  # the browser answers before it hands the wheel to the page
    zoomed = rect(page, 1, 5)
    assert zoomed["width"] > 1.3 * box["width"]
    assert below(zoomed)[0] == pytest.approx(x, abs=1)
    # Beside the line that goes through the pointer
    assert pixel(page, x + 9, y) == colour(page, "compute")


def test_dragging_pans(page: Any) -> None:
    page.evaluate("teamster.zoomTo(0.4, 0.6)")
    before = rect(page, 1, 5)
    move_to(page, 600, before["y"])
    page.mouse.down()
    move_to(page, 500, before["y"])
    page.mouse.up()
    assert rect(page, 1, 5)["x"] == pytest.approx(before["x"] - 100, abs=1)


def test_keys_zoom_pan_and_fit(page: Any) -> None:
    whole = page.evaluate("teamster.view()")
    page.keyboard.press("+")
    closer = page.evaluate("teamster.view()")
    assert closer["t1"] - closer["t0"] == pytest.approx((whole["t1"] - whole["t0"]) / 1.6)
    page.keyboard.press("ArrowRight")
    assert page.evaluate("teamster.view().t0") > closer["t0"]
    page.keyboard.press("0")
    assert page.evaluate("teamster.view()") == pytest.approx(whole)


def test_zooming_ends_at_nanoseconds(page: Any) -> None:
    page.evaluate("teamster.zoomTo(0.5, 0.5 + 200e-9)")
    view = page.evaluate("teamster.view()")
    assert view["t1"] - view["t0"] == pytest.approx(200e-9, rel=0.01)
    assert pixel(
        page, page.evaluate("teamster.plot().right") - 30, below(rect(page, 1, 5))[1]
    ) == colour(page, "compute")


def test_hovering_tells_what_a_bar_is_and_clicking_shows_more(page: Any) -> None:
    move_to(page, *below(rect(page, 1, 5)))
    tip = page.locator("#tip").inner_text()
    assert "work" in tip
    assert "400 ms" in tip
    assert "index 2" in tip
    move_to(page, *below(rect(page, 1, 4)))
    assert "4.77 MiB" in page.locator("#tip").inner_text()
    move_to(page, *below(rect(page, 1, 5)))
    page.mouse.down()
    page.mouse.up()
    picked = page.locator("#picked").inner_text()
    assert "400 ms" in picked
    assert "process 0" in picked
    page.keyboard.press("Escape")
    assert "Click" in page.locator("#picked").inner_text()


def test_search_fades_the_rest_and_jumps(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("DECO")
    page.keyboard.press("Enter")
    assert page.locator("#found").inner_text() == "1 of 1"  # Enter waits for no timer
    # A later timer than the one for what was typed, which would begin the search again
    page.evaluate("new Promise((done) => setTimeout(done, 150))")
    assert page.locator("#found").inner_text() == "1 of 1"
    assert pixel(page, *below(rect(page, 1, 2))) == colour(page, "span")
    assert pixel(page, *below(rect(page, 1, 1))) != colour(page, "compute")
    page.keyboard.press("Escape")
    assert pixel(page, *below(rect(page, 1, 1))) == colour(page, "compute")
    page.keyboard.press("/")
    page.keyboard.type("#4")
    page.keyboard.press("Enter")
    view = page.evaluate("teamster.view()")
    assert view["t0"] < 0.6 < 0.601 < view["t1"]
    assert rect(page, 2, 1)["width"] > 20


def test_the_legend_hides_a_kind_and_not_its_work(page: Any) -> None:
    page.locator('#legend button[data-kind="compute"]').click()
    assert pixel(page, *below(rect(page, 1, 5))) == colour(page, "track")
    assert page.evaluate("teamster.utilization(0, 20)") == pytest.approx(
        small().utilization(20), abs=1e-3
    )


def test_marks_are_drawn_and_lanes_summed_up(page: Any) -> None:
    x = page.evaluate("teamster.markX(0, 1)")
    y = below(rect(page, 2, 0))[1]
    assert pixel(page, x, y) == colour(page, "trouble")
    move_to(page, x + 1, y)
    assert "SIGKILL" in page.locator("#tip").inner_text()
    assert "worker died: SIGKILL" in page.locator("#events").inner_text()
    row = page.locator("#lanes tbody tr").nth(1).inner_text()
    assert [cell.strip() for cell in row.split("\t")[1:]] == ["69 %", "2", "6", "400 ms"]


def test_light_and_dark_differ(open_page: Callable[..., Any]) -> None:
    html = to_html([("run", small())], title="run")
    dark = open_page(html, color_scheme="dark")
    assert dark.evaluate("document.documentElement.dataset.theme") == "dark"
    assert (night := pixel(dark, *below(rect(dark, 1, 5)))) == colour(dark, "compute")
    dark.keyboard.press("t")
    assert dark.evaluate("document.documentElement.dataset.theme") == "light"
    assert pixel(dark, *below(rect(dark, 1, 5))) == colour(dark, "compute") != night


def test_a_hundred_thousand_spans_are_drawn_in_two_seconds(open_page: Callable[..., Any]) -> None:
    page = open_page(to_html([("run", many(100_000, 16))], title="many"))
    assert page.evaluate("teamster.drawMs") < 2_000


def test_spans_that_are_drawn_together_do_not_look_busier(
    open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teamster.spine.trace.render.page.MOST_SPANS", 500)
    timeline = many(4_000, 4)
    page = open_page(to_html([("run", timeline)], title="run"))
    assert page.evaluate("teamster.utilization(0, 10)") == pytest.approx(
        timeline.utilization(10), abs=1e-3
    )


def test_many_lanes_scroll(open_page: Callable[..., Any]) -> None:
    page = open_page(to_html([("run", many(6_400, 128))], title="many"))
    before = rect(page, 0, 1)["y"]
    move_to(page, 20, 400)
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(100)
    assert rect(page, 0, 1)["y"] < before
    assert page.evaluate("teamster.view().t0") == pytest.approx(0)


def test_a_phone_shows_it_all(open_page: Callable[..., Any]) -> None:
    phone = {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    }
    page = open_page(
        to_html(
            [("run", small())], title="run", table=[["backend", "items/s"] * 6, ["serial", "1"] * 6]
        ),
        **phone,
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert pixel(page, *below(rect(page, 1, 5))) == colour(page, "compute")
    x, y = below(rect(page, 1, 5))
    box = page.locator("#canvas").bounding_box()
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    assert "400 ms" in page.locator("#picked").inner_text()


def test_names_are_text_whatever_they_hold(open_page: Callable[..., Any]) -> None:
    page = open_page(to_html([(EVIL, small())], title=EVIL, notes=[EVIL]))
    assert page.locator("h1").inner_text() == EVIL
    move_to(page, *below(rect(page, 2, 0)))
    assert EVIL in page.locator("#tip").inner_text()
    assert page.locator("b img, h1 b, .notes b").count() == 0


def test_several_timelines_share_one_axis(open_page: Callable[..., Any]) -> None:
    later = Timeline(
        10**15,
        10**15 + 2 * 10**9,
        0.0,
        ("", "work"),
        (Lane("serial 0", "serial", 0, 1, Spans([(10**15, 10**15 + 10**9, 0, 1, 1, 0)])),),
    )
    page = open_page(
        to_html(
            [("process", small()), ("serial", later)],
            title="both",
            table=[["backend", "s"], ["serial", "2"]],
        )
    )
    first, second = rect(page, 1, 5), rect(page, 0, 0, group=1)
    plot = page.evaluate("teamster.plot()")
    assert second["x"] == pytest.approx(plot["left"])
    assert second["width"] == pytest.approx(first["width"] * 1_000 / 400)
    assert second["y"] > first["y"]
    assert pixel(page, *below(first)) == pixel(page, *below(second)) == colour(page, "compute")
    assert "serial" in page.locator(".compare").inner_text()


def test_an_empty_timeline_is_a_page(open_page: Callable[..., Any]) -> None:
    page = open_page(to_html([("run", Timeline(0, 0, 0.0, ("",), ()))], title="nothing"))
    assert "0 spans" in page.locator("#facts").inner_text()
