# SPDX-License-Identifier: BSD-3-Clause
"""Samples that cannot be read, and workers that die of them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch
from torch.utils import data

import teamster as ts
from teamster.data import DataLoader
from teamster.errors import UsageError

KINDS = ["inline", "thread", "process", "hybrid"]
BAD = (3, 4, 11)


class Images(data.Dataset[Any]):
    def __init__(self, bad: tuple[int, ...] = BAD, count: int = 16) -> None:
        self.samples = [(f"image{index}.jpg", index) for index in range(count)]
        self.bad = bad

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise OSError(f"broken {index}")
        return torch.tensor(index)


class AtOnce(Images):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def load(kind: str, dataset: Any, **how: Any) -> tuple[list[Any], DataLoader]:
    loader = DataLoader(dataset, 4, num_workers=2, workers=kind, **how)  # type: ignore[arg-type]
    return [batch.tolist() for batch in loader], loader


def failure(kind: str, dataset: Any, **how: Any) -> tuple[type, str]:
    """Class and text of what a loader raises, with its notes; nothing is kept of its traceback."""
    try:
        load(kind, dataset, **how)
    except Exception as error:
        return type(error), "\n".join([str(error), *getattr(error, "__notes__", ())])
    return type(None), ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [Images, AtOnce])
def test_bad_samples_are_left_out(kind: str, make: Any) -> None:
    batches, loader = load(kind, make(), on_error="skip")
    assert batches == [[0, 1, 2], [5, 6, 7], [8, 9, 10], [12, 13, 14, 15]]
    report = loader.report()
    assert [(each.index, each.file) for each in report.failures] == [
        (index, f"image{index}.jpg") for index in BAD
    ]
    assert report.samples == 16
    assert "failed    sample 3 (image3.jpg): OSError: broken 3" in str(report)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_samples_are_replaced(kind: str) -> None:
    batches, _ = load(kind, Images(), on_error="replace")
    assert batches == [[0, 1, 2, 5], [5, 5, 6, 7], [8, 9, 10, 12], [12, 13, 14, 15]]
    batches, _ = load(kind, Images(), on_error=instead)
    assert batches == [[0, 1, 2, -3], [5, 6, 7], [8, 9, 10, -11], [12, 13, 14, 15]]


def instead(index: int, error: BaseException) -> Any:
    return None if index == 4 else torch.tensor(-index)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_which_nothing_is_left_is_passed_over(kind: str) -> None:
    batches, _ = load(kind, Images(tuple(range(4, 8))), on_error="skip")
    assert batches == [[0, 1, 2, 3], [8, 9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_names_the_sample_and_its_file(kind: str) -> None:
    error, text = failure(kind, Images())
    assert error is OSError
    assert text.startswith("broken 3")
    assert "in sample 3 of the dataset (image3.jpg)" in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [2, 0.02])
def test_too_many_are_too_many(kind: str, most: float) -> None:
    error, text = failure(kind, Images(), on_error="skip", max_errors=most)
    assert error is ts.TooManyErrors
    assert f"more than max_errors={most}; the latest: sample" in text
    batches, _ = load(kind, Images(), on_error="skip", max_errors=3)
    assert len(batches) == 4


class Deadly(Images):
    """Kills its process; `once`: a file that says that it has done so."""

    def __init__(self, once: str = "") -> None:
        super().__init__(())
        self.once = once

    def __getitem__(self, index: int) -> Any:
        if index == 5 and not (self.once and os.path.exists(self.once)):
            if self.once:
                open(self.once, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(index)


def test_a_death_costs_nothing_that_can_be_read_again(tmp_path: Any) -> None:
    batches, _ = load("process", Deadly(str(tmp_path / "once")))
    assert batches == [[first, first + 1, first + 2, first + 3] for first in (0, 4, 8, 12)]


def test_a_sample_that_kills_twice_is_named() -> None:
    error, text = failure("process", Deadly())
    assert error is ts.WorkerDied
    assert "in sample 5 of the dataset (image5.jpg)" in text
    batches, loader = load("process", Deadly(), on_error="skip")
    assert batches[1] == [4, 6, 7]
    assert [each.index for each in loader.report().failures] == [5]


class Slow(Images):
    over = False

    def __getitem__(self, index: int) -> Any:
        while index == 6 and not self.over:
            time.sleep(0.01)
        return torch.tensor(index)


@pytest.mark.parametrize("kind", ["thread", "process", "hybrid"])
def test_a_timeout_names_the_sample_that_is_slow_and_where(kind: str) -> None:
    dataset = Slow(())
    error, text = failure(kind, dataset, timeout=2)
    dataset.over = True
    assert error is RuntimeError
    assert "sample 6 is being read" in text
    assert "time.sleep(0.01)" in text


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"on_error": "ignore"}, "on_error must be 'raise', 'skip', 'replace' or a function"),
        ({"max_errors": 1.5}, "max_errors must be a count, or a share from 0.0 to 1.0, not 1.5"),
        ({"max_errors": True}, "max_errors must be a count"),
    ],
)
def test_what_makes_no_sense_is_refused(how: Any, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        DataLoader([1], **how)


class TimesOut:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        raise TimeoutError("the server does not answer")


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout_of_the_datasets_own_is_its_own(kind: str) -> None:
    loader = DataLoader(
        TimesOut(), 2, num_workers=2, workers=kind, timeout=0 if kind == "inline" else 60
    )  # type: ignore[arg-type]
    with pytest.raises(TimeoutError, match="the server does not answer"):
        list(loader)
