# SPDX-License-Identifier: BSD-3-Clause
"""The plan as a value: a table for people, a dict for machines."""

import dataclasses
import json

import pytest

from teamster.machine.gil import GilShare
from teamster.spine.plan.plan import Candidate, Evidence, Plan

PLAN = Plan(
    "thread",
    32,
    "an item waits 98% of its time; throughput rose until 32 workers",
    (
        Candidate("serial", 1, 10.0, 10.0, 10.0),
        Candidate("thread", 32, 320.0, 320.0, 310.5),
        Candidate("process", 8, 80.0, 90.0),
    ),
    Evidence(4, 0.1, 0.002, 0.002, GilShare(0.02, 0.01, 300), 120, 4096, 1.5e-5),
)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAN.workers = 3  # type: ignore[misc]


def test_it_goes_through_json_unchanged() -> None:
    assert Plan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN


def test_what_a_newer_version_wrote_is_read() -> None:
    values = PLAN.to_dict() | {"mood": "good"}
    values["candidates"][0]["colour"] = "red"
    assert Plan.from_dict(values) == PLAN


@pytest.mark.parametrize(
    "values",
    [{}, {"backend": "thread"}, {"backend": 3, "workers": 2}, {"backend": "thread", "workers": 0}],
)
def test_what_is_no_plan_is_refused(values: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Plan.from_dict(values)


def test_the_table() -> None:
    assert str(PLAN).splitlines() == [
        "thread(32): an item waits 98% of its time; throughput rose until 32 workers",
        "  4 items measured here: 100 ms each, 2 ms of it on a processor; GIL held 2% +- 1% (300 "
        "samples), by voluntary switches",
        "  pickled: argument 120 B, result 4.0 KiB; 15 us to move an item",
        "    candidate   predicted  measured",
        "    serial         10.0/s    10.0/s".replace("10.0", "  10"),
        "  * thread(32)      320/s     310/s",
        "    process(8)       80/s         -",
    ]
