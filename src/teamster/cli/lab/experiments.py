# SPDX-License-Identifier: BSD-3-Clause
"""The four experiments as values.

Each says what is asked, what simple theory expects, and which function runs on which inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from teamster.cli.lab.server import DELAY_S
from teamster.cli.lab.work import dot, download, loop, write_file

Expect = Callable[[str, int, float, bool], float]
"""Backend, workers, CPU budget, whether there is a GIL -> speed-up beside the plain loop."""

_LOOP_N = 500_000  # some 30 ms of Python
_DOT_ROWS = 1024  # some 50 ms of BLAS in one thread, 8 MiB a matrix


@dataclass(frozen=True, slots=True)
class Case:
    """One function with its inputs.

    Attributes:
        label: What sets it apart from the other cases of the experiment; empty where there is one
            only.
        function: Runs in the workers.
        make_input: From a number, the place (an address or a folder) and the usable cores.
        expect: The speed-up that simple theory expects.
        theory: The same in a sentence.

    Example:
        >>> EXPERIMENTS["loop"].cases[0].expect("process", 4, 2.0, True)
        2.0
    """

    label: str
    function: Callable[[Any], object]
    make_input: Callable[[int, str, int], Any]
    expect: Expect
    theory: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question to the machine.

    Attributes:
        name: As in ``--only``.
        title: For people.
        question: What is asked.
        expectation: What one would expect, and why.
        cases: What is run.
        lesson: What to remember, where the measurement agrees with the theory.
        needs: A module that has to be there; empty for none.

    Example:
        >>> EXPERIMENTS["dot"].needs
        'numpy'
    """

    name: str
    title: str
    question: str
    expectation: str
    cases: tuple[Case, ...]
    lesson: str
    needs: str = ""


def _expect_waiting(_backend: str, workers: int, _budget: float, _gil: bool) -> float:
    return float(workers)


def _expect_native(_backend: str, workers: int, budget: float, _gil: bool) -> float:
    return max(1.0, min(float(workers), budget))


def _expect_python(backend: str, workers: int, budget: float, gil: bool) -> float:
    return 1.0 if backend == "thread" and gil else max(1.0, min(float(workers), budget))


def _expect_nothing(_backend: str, _workers: int, _budget: float, _gil: bool) -> float:
    return 1.0


_DOWNLOAD = Experiment(
    name="download",
    title="Downloading a list of URLs",
    question="Each page takes a tenth of a second to arrive. Does it help to ask for several at "
    "once?",
    expectation=f"A download is mostly waiting: each answer begins {DELAY_S * 1e3:.0f} ms late, "
    "however fast the processor is. A worker that waits needs no processor and no GIL, so any "
    "number can wait at the same time. n threads should be n times as fast, and so should n "
    "processes, also with more of them than there are cores.",
    cases=(
        Case(
            "",
            download,
            lambda number, address, _cores: f"{address}/page/{number}",
            _expect_waiting,
            "n workers wait for n pages at once: n times as fast.",
        ),
    ),
    lesson="Work that waits wants many workers, more than there are cores, and threads are the "
    "cheapest kind.",
)

_WRITE = Experiment(
    name="write",
    title="Writing large text files",
    question="Each item writes a text file of 32 million characters. Is that work for the disk, "
    "for the processor, or for Python?",
    expectation="Writing a file does not wait for the disk: the system copies the text into memory "
    "that it keeps as a cache (the page cache) and writes it out later. So it is work for the "
    "processor. Python turns the text into bytes with the GIL held, and releases it while the "
    "system copies. If the copying is most of it, n threads and n processes should both be n times "
    "as fast, up to the number of cores.",
    cases=(
        Case(
            "",
            write_file,
            lambda _number, folder, _cores: folder,
            _expect_native,
            "The system copies without the GIL: as many times as fast as there are workers, up to "
            "the number of cores.",
        ),
    ),
    lesson="Writing files costs processor time, mostly outside the GIL, so threads do as well as "
    "processes, up to the number of cores.",
)

_LOOP = Experiment(
    name="loop",
    title="A loop in pure Python",
    question=f"Each item adds up {_LOOP_N:,} squares in a for loop. What can do that faster than "
    "one thread?",
    expectation="An ordinary Python interpreter runs Python code in one thread at a time: the "
    "thread that runs it holds the GIL, the lock of the interpreter. Threads only take turns, so "
    "they should take as long as the plain loop. Each process has an interpreter and a GIL of its "
    "own, so n processes should be n times as fast, up to the number of cores.",
    cases=(
        Case(
            "",
            loop,
            lambda _number, _place, _cores: _LOOP_N,
            _expect_python,
            "Threads take turns at the GIL: no faster. Processes: as many times as fast as there "
            "are, up to the number of cores.",
        ),
    ),
    lesson="Pure Python code wants processes, one a core; threads only take turns at it.",
)

_DOT = Experiment(
    name="dot",
    title="Dot products with NumPy",
    question=f"Each item multiplies a matrix of {_DOT_ROWS:,} x {_DOT_ROWS:,} numbers by itself. "
    "NumPy leaves that to a library (BLAS) with threads of its own. What is left for us to do in "
    "parallel?",
    expectation="NumPy releases the GIL while BLAS computes, and BLAS uses every core by itself, "
    "if it may. Free: one product at a time keeps all cores busy already, so more workers should "
    "gain nothing, and may lose, as n workers times n BLAS threads are more than there are cores "
    "(oversubscription). Fixed to one BLAS thread a worker: a product uses one core, so n threads "
    "or n processes should be n times as fast, up to the number of cores.",
    cases=(
        Case(
            "BLAS threads free",
            dot,
            lambda _number, _place, cores: (_DOT_ROWS, cores),
            _expect_nothing,
            "One product keeps all cores busy already: no faster, however many workers there are.",
        ),
        Case(
            "one BLAS thread a worker",
            dot,
            lambda _number, _place, _cores: (_DOT_ROWS, 1),
            _expect_native,
            "BLAS computes without the GIL: as many times as fast as there are workers, up to the "
            "number of cores.",
        ),
    ),
    lesson="Use the cores once: let BLAS have them, or let the workers have them with one BLAS "
    "thread each (Teamster sets that by itself), never both.",
    needs="numpy",
)

EXPERIMENTS = {each.name: each for each in (_DOWNLOAD, _WRITE, _LOOP, _DOT)}
"""By name, in the order of the report."""
