# SPDX-License-Identifier: BSD-3-Clause
"""Several training programs that read the same data: one loader for all, beside one each.

Question: what do three programs on this machine gain where loading bounds them?
Method:   each program trains for some epochs on photos that are decoded (some 3 ms each), with the
          loader of `share="name"`, with a loader of its own, and one program alone; the time
          without the first epoch, in which all start; in turn, medians of rounds.
Command:  make bench-sharing ARGS="--rounds 3"
Result:   see docs/data_loading.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.loader import Jpegs, trainer
from teamster.data import DataLoader

PHOTOS, BATCH, EPOCHS = 640, 32, 3


def train(share: str | None) -> None:
    """One program: prints when its second epoch began, and when its last ended."""
    loader = DataLoader(Jpegs(PHOTOS), BATCH, shuffle=True, share=share, num_workers=2)
    step, began = trainer(), 0.0
    for epoch in range(1 + EPOCHS):
        began = time.time() if epoch == 1 else began
        seen = 0
        for images, _ in loader:
            seen += len(images)
            step(images)
        assert seen == PHOTOS
    print(began, time.time())


def rate(programs: int, share: str | None) -> float:
    """Samples a second that each of so many programs gets."""
    command = [sys.executable, "-m", "benchmarks.sharing", "--train", share or ""]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        for _ in range(programs)
    ]
    found = [program.communicate()[0].split() for program in started]
    if any(program.returncode for program in started):
        raise SystemExit("a program failed; its error stands above")
    seconds = [float(ended) - float(began) for began, ended in found]
    return PHOTOS * EPOCHS / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.train is not None:
        train(options.train or None)
        return
    ways = {"alone": (1, None), "3 programs, unshared": (3, None), "3 programs, shared": (3, "b")}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, (programs, share) in ways.items():
            found[way].append(rate(programs, share))
    medians = {way: statistics.median(rates) for way, rates in found.items()}
    for way, each in medians.items():
        ratio = each / medians["3 programs, unshared"]
        print(f"{way:22} {each:7.0f} samples a second for each   {ratio:5.2f} times unshared")


if __name__ == "__main__":
    main()
