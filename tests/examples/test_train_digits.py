# SPDX-License-Identifier: BSD-3-Clause
"""A CNN learns the digits under every strategy: plainly, by torchrun, and in a notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]
ASKED = 98.0  # per cent of the digits that it has not seen
LIMIT_S = 200.0
EPOCHS = "8"


def best(output: str) -> float:
    return max(float(each) for each in re.findall(r"epoch \d+: ([\d.]+)%", output))


def run(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3_000:]
    return result.stdout


def test_plainly_under_each_strategy() -> None:
    """In one program, which loads torch once."""
    strategies = ["single", "dp", "ddp", "auto"]
    program = f"""
from examples.train_digits import train
for strategy in {strategies}:
    train(strategy, {EPOCHS})
    print("next", flush=True)
"""
    *parts, _ = run("-c", program).split("next\n")
    assert [best(part) >= ASKED for part in parts] == [True] * 4
    assert all("samples   " in part for part in parts)


def test_by_torchrun() -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    output = run(*launch, "examples.train_digits", "--epochs", EPOCHS)
    assert best(output) >= ASKED
    assert output.count("epoch 1:") == 1  # one of the ranks speaks


def test_in_a_notebook() -> None:
    """Without a file that a process could import, and without a guard."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    source = (ROOT / "examples" / "train_digits.py").read_text()
    cells = [source.replace('if __name__ == "__main__":\n    main()\n', ""), "train('ddp', 8)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    nbclient.NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3").execute()
    output = "".join(each.get("text", "") for each in notebook.cells[1].outputs)
    assert best(output) >= ASKED
