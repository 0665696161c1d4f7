# SPDX-License-Identifier: BSD-3-Clause
"""The report of a lab: one page of HTML that loads nothing, and the pictures as files beside it.

::

    Lab --> pictures (PNG)  --> download.png, download-timelines.png, ...
        --> sections        --> index.html: page/page.html with page.css and the pictures in it
"""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from textwrap import dedent

from teamster.cli.lab.conducting import Lab, Result
from teamster.cli.lab.pictures import draw_timelines, draw_times
from teamster.cli.lab.runs import Measured, Outcome
from teamster.cli.lab.summary import describe_auto, describe_result, describe_work, lesson_of
from teamster.cli.lab.words import describe_others, judge
from teamster.spine.trace.render.bars import COLOURS
from teamster.units import show_seconds

_PAGE = Path(__file__).parent / "page"
_CLEAR = 1.10  # a speed-up that is worth the workers
_HOLE = re.compile(r"\{\{(\w+)\}\}")
_DOCSTRING = re.compile(r'\n    """.*?"""\n', re.DOTALL)
_KINDS = {
    "compute": "the function of the experiment runs",
    "wait": "the worker waits for something to do; the caller waits for results",
    "initialise": "the worker starts",
    "transfer": "data goes to another process or comes from there",
    "serialise": "data is turned into bytes for the journey, or back",
}


def write_report(lab: Lab, folder: Path) -> list[Path]:
    """Write the page and the pictures.

    Args:
        lab: What was measured.
        folder: Where to; it is there.

    Returns:
        The files, the page first.

    Raises:
        OSError: the disk is full, or the like.

    Example:
        >>> import tempfile
        >>> from teamster.cli.lab.conducting import conduct
        >>> from teamster.cli.lab.runs import Sizes
        >>> lab = conduct([], Path("."), Sizes(0.0, 1), print)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_report(lab, Path(folder))]
        ['index.html']
    """
    pictures: dict[str, bytes] = {}
    for result in lab.results:
        pictures |= _pictures(result)
    page = folder / "index.html"
    page.write_text(to_page(lab, pictures), encoding="utf-8")
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    return [page, *(folder / name for name in pictures)]


def _pictures(result: Result) -> dict[str, bytes]:
    if not result.outcomes:
        return {}
    drawn = {f"{result.experiment.name}.png": draw_times(result)}
    for number, outcome in enumerate(result.outcomes):
        title = ", ".join(text for text in (result.experiment.title, outcome.case.label) if text)
        drawn[_picture_name(result, number)] = draw_timelines(outcome, title)
    return drawn


def _picture_name(result: Result, number: int) -> str:
    several = len(result.outcomes) > 1
    return f"{result.experiment.name}-timelines{f'-{number + 1}' if several else ''}.png"


def to_page(lab: Lab, pictures: dict[str, bytes]) -> str:
    """The page.

    Args:
        lab: What was measured.
        pictures: PNG files by name.

    Returns:
        HTML that needs no network.

    Example:
        >>> from teamster.cli.lab.conducting import conduct
        >>> from teamster.cli.lab.runs import Sizes
        >>> lab = conduct([], Path("."), Sizes(0.0, 1), print)
        >>> to_page(lab, {}).startswith("<!doctype html>")
        True
    """
    disturbed = describe_others([outcome for result in lab.results for outcome in result.outcomes])
    parts = {
        "style": _asset("page.css"),
        "facts": escape(_facts(lab)),
        "how": escape(_how(lab)),
        "disturbed": f'<p class="note">{escape(disturbed)}</p>' if disturbed else "",
        "contents": "".join(
            f'<li><a href="#{escape(each.experiment.name)}">'
            f"{escape(each.experiment.title)}</a></li>"
            for each in lab.results
        ),
        "legend": "".join(
            f'<dt><i style="background:{COLOURS[kind]}"></i>{kind}</dt><dd>{escape(text)}</dd>'
            for kind, text in _KINDS.items()
        ),
        "experiments": "\n".join(_section(result, pictures) for result in lab.results),
        "overview": _overview(lab),
        "machine": _machine(lab),
    }
    return _HOLE.sub(lambda hole: parts[hole[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _facts(lab: Lab) -> str:
    cores = lab.machine.usable_cores
    processor = f" ({lab.versions['processor']})" if "processor" in lab.versions else ""
    when = lab.began.strftime("%Y-%m-%d %H:%M")
    return (
        f"{when}, Python {lab.machine.python_version}, {cores} usable "
        f"core{'s' * (cores != 1)}{processor}"
    )


def _how(lab: Lab) -> str:
    said = (
        f"There are as many inputs as keep the plain loop busy for about {lab.sizes.target_s:.3g} "
        "s. "
    )
    if lab.sizes.rounds == 1:
        return (
            said
            + "Each way ran once, so a figure may be off by chance; without --quick each way runs "
            "three times."
        )
    return (
        said + f"Each way ran {_times(lab)}, in turns, so that what disturbs one disturbs all; the "
        "middle one counts."
    )


def _times(lab: Lab) -> str:
    ran = sorted(
        {
            len(each.rounds_s)
            for result in lab.results
            for outcome in result.outcomes
            for each in outcome.measured
        }
    )
    return f"{ran[0]} times" if len(ran) == 1 and ran[0] > 1 else f"up to {lab.sizes.rounds} times"


# ------------------------------------------------------------------------------------ an experiment


def _section(result: Result, pictures: dict[str, bytes]) -> str:
    experiment = result.experiment
    parts = [
        f'<section id="{escape(experiment.name)}">',
        f"<h2>{escape(experiment.title)}</h2>",
        f'<p class="question">{escape(experiment.question)}</p>',
        f"<pre>{escape(_source(experiment.cases[0].function))}</pre>",
        "<h3>What one would expect</h3>",
        f"<p>{escape(experiment.expectation)}</p>",
    ]
    if result.skipped:
        parts.append(f'<p class="note"><strong>Skipped.</strong> {escape(result.skipped)}</p>')
    for number, outcome in enumerate(result.outcomes):
        name = _picture_name(result, number)
        parts.append(
            _case(outcome, f"{experiment.title} {outcome.case.label}".strip(), pictures[name])
        )
    if result.outcomes:
        lesson = lesson_of(experiment.lesson, result.outcomes)
        parts.append(f'<p class="lesson"><strong>What to remember.</strong> {escape(lesson)}</p>')
    parts += [_repeat(experiment.cases[0].function), "</section>"]
    return "\n".join(parts)


def _case(outcome: Outcome, name: str, picture: bytes) -> str:
    label = outcome.case.label
    heading = f"What was measured: {label}" if label else "What was measured"
    image = base64.b64encode(picture).decode()
    # A line of the table that is not as expected is explained below it; what is as expected
    # explains itself.
    odd = [(each, judge(outcome, each).why) for each in outcome.measured]
    reasons = [
        f"<strong>{escape(each.way)}</strong>, {_compared(outcome, each)}. {escape(why)}"
        for each, why in odd
        if why
    ]
    said = [describe_work(outcome), *describe_result(outcome), describe_auto(outcome)]
    return f"""<h3>{escape(heading)}</h3>
<p>{outcome.items} inputs. Theory: {escape(outcome.case.theory)}</p>
{_table(outcome)}
{_bars(outcome)}
<h3>What happened on this machine</h3>
<p>{escape(said[0])}</p>
<ul>{"".join(f"<li>{escape(text)}</li>" for text in said[1:])}\
{"".join(f"<li>{text}</li>" for text in reasons)}</ul>
<h3>The timelines</h3>
<figure><div class="wide" tabindex="0"><img alt="Timelines of all ways: {escape(name)}" \
src="data:image/png;base64,{image}"></div>
<figcaption>Each way from its own start, all on the same seconds. \
The ending of the workers is in the
picture, too, and not in the times of the table.</figcaption></figure>"""


def _compared(outcome: Outcome, each: Measured) -> str:
    return f"{outcome.speedup(each):.2f}x instead of {each.expected:.3g}x"


def _table(outcome: Outcome) -> str:
    head = ("", "expected", "measured", "", "time", "processors in use", "first result after")
    rows = [_row([f"<th scope='col'>{text}</th>" for text in head])]
    for each in outcome.measured:
        word = judge(outcome, each).word
        best = " class='best'" if each is outcome.fastest else ""
        cells = [
            f"<th scope='row'>{escape(each.run.name)}</th>",
            f"<td>{f'{each.expected:.3g}x' if each is not outcome.loop else ''}</td>",
            f"<td>{outcome.speedup(each):.2f}x</td>",
            f"<td class='word'><span class='{word.replace(' ', '-')}'>{_shown(word)}</span></td>",
            f"<td>{_seconds(each)}</td>",
            f"<td>{each.run.cpu:.2f}</td>",
            f"<td>{show_seconds(each.run.first_s)}</td>",
        ]
        rows.append(_row(cells, best))
    return f"<div class='wide' tabindex='0'><table class='numbers'>{''.join(rows)}</table></div>"


def _shown(word: str) -> str:
    return {"start": "the measure", "less": "slower", "more": "faster"}.get(word, word)


def _seconds(each: Measured) -> str:
    low, high = show_seconds(each.rounds_s[0]), show_seconds(each.rounds_s[-1])
    spread = f" <small>{low} to {high}</small>" if len(each.rounds_s) > 1 else ""
    return f"{show_seconds(each.run.seconds)}{spread}"


def _row(cells: Sequence[str], attributes: str = "") -> str:
    return f"<tr{attributes}>{''.join(cells)}</tr>"


def _bars(outcome: Outcome) -> str:
    """Bars of the times; an upright line is what one would expect."""
    loop_s = outcome.loop.run.seconds
    most = max(max(each.run.seconds, loop_s / each.expected) for each in outcome.measured)
    rows = []
    for each in outcome.measured:
        mark = (
            ""
            if each.is_auto or each is outcome.loop
            else f"<b style='left:{100 * loop_s / each.expected / most:.1f}%'></b>"
        )
        kind = "auto" if each.is_auto else "fixed"
        bar = f"<i class='{kind}' style='width:{100 * each.run.seconds / most:.1f}%'></i>"
        time = show_seconds(each.run.seconds)
        rows.append(
            f"<div><span>{escape(each.run.name)}</span>"
            f"<span class='track'>{bar}{mark}</span><span>{time}</span></div>"
        )
    caption = (
        "<figcaption>Time for all inputs: shorter is better. The upright line is what one would "
        "expect.</figcaption>"
    )
    return f"<figure class='bars'>{''.join(rows)}{caption}</figure>"


def _source(function: Callable[..., object]) -> str:
    return _DOCSTRING.sub("\n", dedent(inspect.getsource(function)), count=1).strip()


def _repeat(function: Callable[..., object]) -> str:
    name = function.__name__
    lines = (
        "import teamster as ts",
        f"from teamster.cli.lab.work import {name}",
        "",
        'with ts.record("run.html"):  # the timeline',
        f'    results = ts.map({name}, inputs)  # or with backend="thread", workers=4',
    )
    return (
        "<details><summary>Repeat it in a program of your own</summary>"
        f"<pre>{escape(chr(10).join(lines))}</pre></details>"
    )


# -------------------------------------------------------------------------------------- the closing


def _overview(lab: Lab) -> str:
    head = (
        "experiment",
        "as expected",
        "fastest fixed way",
        "speed-up",
        "auto chose",
        "its speed beside that way",
    )
    rows = [_row([f"<th scope='col'>{text}</th>" for text in head])]
    for result in lab.results:
        for outcome in result.outcomes:
            label = f", {outcome.case.label}" if outcome.case.label else ""
            best, auto = outcome.best, outcome.auto
            name = (
                f"<th scope='row'><a href='#{result.experiment.name}'>"
                f"{escape(result.experiment.title)}</a>{escape(label)}</th>"
            )
            cells = [
                name,
                f"<td>{_agreeing(outcome)}</td>",
                f"<td>{escape(best.way)}, {show_seconds(best.run.seconds)}</td>",
                f"<td>{outcome.speedup(best):.2f}x</td>",
                f"<td>{escape(auto.run.name.removeprefix('auto: '))}, "
                f"{show_seconds(auto.run.seconds)}</td>",
                f"<td>{outcome.closeness:.0%}</td>",
            ]
            rows.append(_row(cells))
        if result.skipped:
            title = f"<th scope='row'>{escape(result.experiment.title)}</th>"
            rows.append(_row([title, "<td colspan='5'>skipped</td>"]))
    table = f"<div class='wide' tabindex='0'><table class='numbers'>{''.join(rows)}</table></div>"
    return (
        f"{table}\n{_summary([outcome for result in lab.results for outcome in result.outcomes])}"
    )


def _agreeing(outcome: Outcome) -> str:
    others = outcome.fixed[1:]
    return (
        f"{sum(judge(outcome, each).word == 'as expected' for each in others)} of {len(others)} "
        "ways"
    )


def _summary(outcomes: list[Outcome]) -> str:
    if not outcomes:
        return ""
    kinds = sorted(
        {
            each.best.run.backend if each.speedup(each.best) > _CLEAR else "serial"
            for each in outcomes
        }
    )
    least = min(outcomes, key=lambda outcome: outcome.closeness)
    if len(kinds) == 1:
        said = f"Here one kind was always the right one: {kinds[0]}."
    else:
        said = (
            f"No kind was the right one everywhere: {', '.join(kinds[:-1])} and {kinds[-1]} each "
            "won at least once."
        )
    said += (
        " (A plain loop is right where nothing else is 10% faster.)" if "serial" in kinds else ""
    )
    reached = f"{min(1.0, least.closeness):.0%} of the speed of the fastest fixed way"
    said += f" auto, which had to find out by itself, reached at least {reached}"
    return (
        f"<p>{escape(said)} each time, the finding out included. In longer jobs the finding out "
        "weighs less.</p>"
    )


def _machine(lab: Lab) -> str:
    rows = [re.split(r"\s{2,}", line, maxsplit=1) for line in str(lab.machine).splitlines()]
    rows += [[name, text] for name, text in lab.versions.items()]
    rows.append(["this lab took", show_seconds(lab.seconds)])
    return "".join(
        _row([f"<th scope='row'>{escape(row[0])}</th>", f"<td>{escape(row[-1])}</td>"])
        for row in rows
    )
