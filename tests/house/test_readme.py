# SPDX-License-Identifier: BSD-3-Clause
"""What the documents show, runs.

Every block of Python in README.md and docs/, each alone, in an empty folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import RunScript

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[object]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text() if path.exists() else ""
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            yield pytest.param(block.group(1), id=f"{path.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("block", list(blocks()))
def test_block_runs(block: str, run_script: RunScript) -> None:
    result = run_script(block, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.survivors() == []
