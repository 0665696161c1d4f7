# SPDX-License-Identifier: BSD-3-Clause
"""A GPT with tied weights learns source text: plainly, by torchrun, and in a notebook."""

from __future__ import annotations

import re

import pytest

from tests.examples.test_train_digits import LIMIT_S, ROOT, run

ASKED = 2.9  # nats a character after 40 steps: at the beginning 4.8, by letter frequencies 3.2
STEPS = "40"


def losses(output: str) -> list[float]:
    return [float(each) for each in re.findall(r"^loss ([\d.]+)$", output, re.MULTILINE)]


def test_plainly() -> None:
    (found,) = losses(run("-m", "examples.train_text", "--strategy", "ddp", "--steps", STEPS))
    assert found < ASKED


def test_by_torchrun() -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    (found,) = losses(run(*launch, "examples.train_text", "--steps", STEPS))
    assert found < ASKED


def test_in_a_notebook() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    source = (ROOT / "examples" / "train_text.py").read_text()
    cells = [
        source.replace('if __name__ == "__main__":\n    main()\n', ""),
        f"train('dp', {STEPS})",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    nbclient.NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3").execute()
    (found,) = losses("".join(each.get("text", "") for each in notebook.cells[1].outputs))
    assert found < ASKED
