# SPDX-License-Identifier: BSD-3-Clause
"""A table that says which test covers what names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CITED = re.compile(r"`([\w/]+\.py)`: ((?:`test_\w+(?:\[[^`]*\])?`(?:, )?)+)")
NAME = re.compile(r"`(test_\w+)")
TABLES = sorted(TESTS.rglob("README.md"))


@pytest.mark.parametrize("table", TABLES, ids=lambda path: str(path.relative_to(TESTS)))
def test_cited_tests_exist(table: Path) -> None:
    missing, found = [], 0
    for file, names in CITED.findall(table.read_text()):
        text = (table.parent / file).read_text()
        for name in NAME.findall(names):
            found += 1
            if f"def {name}(" not in text:
                missing.append(f"{file}: {name}")
    assert not missing
    assert found > 30
