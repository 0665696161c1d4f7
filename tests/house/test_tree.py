# SPDX-License-Identifier: BSD-3-Clause
"""Where files stand and how they begin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "teamster"
TESTS = ROOT / "tests"
SPDX = "# SPDX-License-Identifier: BSD-3-Clause"

# Rooms of tests that stand for no file: the rules of the house, the laws, the contract that every
# backend keeps, tests of others.
NOT_A_ROOM = {"house", "laws", "contract", "conformance"}
# What is tested and stands beside src/.
BESIDE = {"examples", "benchmarks"}
# Names that say nothing about what is inside.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "stuff"}
# Put together here so that this file does not mention them itself.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]) + r")\b")

PYTHON = sorted(
    path for folder in ("src", "tests", *BESIDE) for path in (ROOT / folder).rglob("*.py")
)
TEXTS = [
    *PYTHON,
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
]


def sources_of(test: Path) -> list[Path]:
    """The files that a test may be about.

    Tests/room/test_file.py or tests/room/file/test_topic.py.
    """
    inside = test.relative_to(TESTS)
    home = ROOT if inside.parts[0] in BESIDE else SOURCE
    stem = test.stem.removeprefix("test_")
    folder = home / inside.parent
    return [folder / f"{'__init__' if stem == 'init' else stem}.py", folder.with_suffix(".py")]


def paths_of_tests() -> list[Path]:
    found = (path.relative_to(TESTS) for path in sorted(TESTS.rglob("test_*.py")))
    return [path for path in found if path.parts[0] not in NOT_A_ROOM]


@pytest.mark.parametrize("path", paths_of_tests(), ids=str)
def test_test_paths_equal_source_paths(path: Path) -> None:
    candidates = sources_of(TESTS / path)
    assert any(source.exists() for source in candidates), (
        f"{path} tests none of {[str(each) for each in candidates]}"
    )


def test_every_file_names_its_licence() -> None:
    def head(path: Path) -> str:
        lines = path.read_text().splitlines() or [""]
        return lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]

    assert [str(path.relative_to(ROOT)) for path in PYTHON if head(path) != SPDX] == []


def test_every_source_file_says_what_it_is() -> None:
    second = {path: [*path.read_text().splitlines(), "", ""][1] for path in SOURCE.rglob("*.py")}
    assert [
        str(path.relative_to(ROOT))
        for path, line in second.items()
        if not line.startswith(('"""', 'r"""'))
    ] == []


def test_every_folder_of_sources_is_a_package() -> None:
    folders = {path.parent for path in SOURCE.rglob("*.py")}
    assert [
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()
    ] == []


def test_no_file_is_named_after_nothing() -> None:
    assert [str(path.relative_to(ROOT)) for path in PYTHON if path.stem in EMPTY_NAMES] == []


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in TEXTS
        if path.exists()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_the_package_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()
