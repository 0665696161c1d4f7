# SPDX-License-Identifier: BSD-3-Clause
"""Runs the experiments that are asked for, one after the other, and keeps everything as one value.

::

    names -> Experiment -> its place (a server, a folder) -> run_case for each case -> Result -> Lab
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from teamster.cli.lab.experiments import EXPERIMENTS, Experiment
from teamster.cli.lab.runs import LabSetting, Measured, Outcome, Sizes, run_case
from teamster.cli.lab.server import serve
from teamster.cli.lab.words import judge
from teamster.machine.cpus import read_text
from teamster.machine.machine import Machine

_PACKAGES = ("teamster", "numpy", "matplotlib")


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of an experiment.

    Attributes:
        experiment: which.
        outcomes: one for each case; none where it was skipped.
        skipped: why; empty where it was not.

    Example:
        >>> Result(EXPERIMENTS["loop"], (), "no time").skipped
        'no time'
    """

    experiment: Experiment
    outcomes: tuple[Outcome, ...]
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Lab:
    """All of it.

    Attributes:
        results: one for each experiment.
        machine: where.
        versions: what with, by name.
        began: when, in local time.
        seconds: how long it took.
        sizes: how much of it.

    Example:
        >>> lab = conduct([], Path("/tmp"), Sizes(0.0, 1), print)
        >>> lab.results
        ()
    """

    results: tuple[Result, ...]
    machine: Machine
    versions: dict[str, str]
    began: datetime
    seconds: float
    sizes: Sizes

    def to_dict(self) -> dict[str, Any]:
        """All of it but the timelines, ready for JSON; times in seconds, sizes in bytes.

        Returns:
            A dict of plain values.

        Example:
            >>> conduct([], Path("/tmp"), Sizes(0.0, 1), print).to_dict()["experiments"]
            []
        """
        return {
            "began": self.began.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "target_s": self.sizes.target_s,
            "rounds": self.sizes.rounds,
            "versions": self.versions,
            "machine": self.machine.to_dict(),
            "experiments": [_result_facts(result) for result in self.results],
        }


def conduct(names: Sequence[str], folder: Path, sizes: Sizes, tell: Callable[[str], None]) -> Lab:
    """Run the experiments.

    Args:
        names: Keys of `EXPERIMENTS`.
        folder: Where files may be written; none of them stays.
        sizes: How much of it.
        tell: Called with a line whenever something new begins.

    Returns:
        What was measured.

    Raises:
        TeamsterError: the web server did not start.

    Example:
        >>> lab = conduct(["loop"], Path("."), Sizes(0.0, 1), lambda text: None)
        >>> [outcome.items for outcome in lab.results[0].outcomes]
        [8]
    """
    began, started = datetime.now().astimezone(), perf_counter()
    machine = Machine.detect()
    results: list[Result] = []
    left = sum(len(EXPERIMENTS[name].cases) for name in names)
    for number, name in enumerate(names, 1):
        experiment = EXPERIMENTS[name]
        # The sizes for each of its cases
        fitting = sizes.within(sizes.limit_s - (perf_counter() - started), left)
        results.append(
            _run(
                experiment,
                machine,
                folder,
                fitting,
                _prefixed(tell, f"{number} of {len(names)}, {name}: "),
            )
        )
        left -= len(experiment.cases)
    return Lab(tuple(results), machine, _versions(), began, perf_counter() - started, sizes)


def _prefixed(tell: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda text: tell(prefix + text)


def _run(
    experiment: Experiment,
    machine: Machine,
    folder: Path,
    sizes: Sizes,
    tell: Callable[[str], None],
) -> Result:
    if experiment.needs:
        try:
            import_module(experiment.needs)
        except ImportError:
            return Result(
                experiment,
                (),
                f"It needs {experiment.needs}, which is not installed: pip install "
                f"{experiment.needs}",
            )
    with _setting(experiment, machine, folder) as setting:
        outcomes = [
            run_case(case, setting, sizes, _prefixed(tell, f"{case.label}, " if case.label else ""))
            for case in experiment.cases
        ]
    return Result(experiment, tuple(outcomes))


@contextmanager
def _setting(experiment: Experiment, machine: Machine, folder: Path) -> Iterator[LabSetting]:
    setting = LabSetting(machine.usable_cores, machine.cpu_budget, str(folder))
    if experiment.name != "download":
        yield setting
        return
    with serve() as server:
        yield replace(setting, place=server.address, aside_pid=server.pid)


def _versions() -> dict[str, str]:
    found = {"system": platform.platform(), "processor": _processor()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if "numpy" in found:
        from threadpoolctl import threadpool_info

        blas = [
            f"{each['internal_api']} {each['version']}"
            for each in threadpool_info()
            if each["user_api"] == "blas"
        ]
        found |= {"BLAS": ", ".join(blas)} if blas else {}
    return {name: text for name, text in found.items() if text}


def _processor() -> str:
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _result_facts(result: Result) -> dict[str, Any]:
    return {
        "name": result.experiment.name,
        "skipped": result.skipped,
        "cases": [_outcome_facts(outcome) for outcome in result.outcomes],
    }


def _outcome_facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "label": outcome.case.label,
        "items": outcome.items,
        "item_s": outcome.item_s,
        "gil": None if outcome.gil is None else asdict(outcome.gil),
        "ways": [_way_facts(outcome, each) for each in outcome.measured],
        "fastest": outcome.fastest.way,
        "fastest_fixed": outcome.best.way,
        "auto_of_fastest_fixed": outcome.closeness,
    }


def _way_facts(outcome: Outcome, each: Measured) -> dict[str, Any]:
    verdict = judge(outcome, each)
    return {
        "way": each.way,
        **each.run.to_dict(),
        "rounds_s": list(each.rounds_s),
        "speedup": outcome.speedup(each),
        "expected_speedup": each.expected,
        "others_cpu": each.others_cpu,
        "verdict": verdict.word,
        "why": verdict.why,
        "reason": each.reason,
    }
