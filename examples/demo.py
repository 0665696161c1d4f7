# SPDX-License-Identifier: BSD-3-Clause
"""The demonstration: measure every source of this Python, by a loop and by all cores.

It leaves the timeline.

Run it with ``make demo``; ``make demo ARGS="--picture timeline.png"`` draws the classic picture,
too.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
import warnings
from pathlib import Path
from typing import Any

import teamster as ts
from examples.source_size import measure


def plain_loop(paths: list[str]) -> list[Any]:
    """What one would write without Teamster."""
    results: list[Any] = []
    for path in paths:
        try:
            results.append(measure(path))
        except Exception as error:  # some test files of Python are broken on purpose
            results.append(error)
    return results


def main() -> None:
    """Run both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--page", type=Path, default=Path("out/demo.html"), help="where the timeline goes"
    )
    parser.add_argument("--picture", type=Path, help="draw it, too: .png or .svg, with matplotlib")
    arguments = parser.parse_args()
    for path in filter(None, (arguments.page, arguments.picture)):
        path.parent.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", SyntaxWarning)  # what the sources warn of is not our subject
    warnings.simplefilter("ignore", DeprecationWarning)
    folder = sysconfig.get_path("stdlib")
    paths = sorted(
        str(path) for path in Path(folder).rglob("*.py") if "site-packages" not in path.parts
    )
    print(f"{len(paths):,} Python sources below {folder}\n")

    began = time.perf_counter()
    expected = plain_loop(paths)
    loop_s = time.perf_counter() - began
    print(f"plain loop          {loop_s:6.2f} s")

    with ts.record(arguments.page) as recording, ts.Pool(progress="measure") as pool:
        began = time.perf_counter()
        results = pool.map(measure, paths, on_error="return")
        pool_s = time.perf_counter() - began
        print(
            f"ts.Pool()           {pool_s:6.2f} s   {loop_s / pool_s:.2f} times as fast, "
            "start of the workers included\n"
        )
        print(f"{pool.plan}\n\n{pool.report()}")

    measured = [result for result in results if isinstance(result, dict)]
    assert measured == [result for result in expected if isinstance(result, dict)]
    longest = max(
        (result["longest"] for result in measured if result["longest"]),
        key=lambda function: function["lines"],
    )
    print(
        f"\n{sum(result['lines'] for result in measured):,} lines; the longest function: "
        f"{longest['name']}, {longest['lines']}."
    )
    print(
        f"{len(results) - len(measured)} files do not parse "
        "(broken on purpose, for Python's own tests); the others arrived."
    )
    print(f"\nWhat every worker did: {arguments.page.resolve().as_uri()}")
    if arguments.picture is not None:
        recording.save(arguments.picture)


if __name__ == "__main__":
    main()
