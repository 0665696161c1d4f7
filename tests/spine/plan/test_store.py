# SPDX-License-Identifier: BSD-3-Clause
"""Plans in a file."""

import functools
import json
import os
from pathlib import Path

import pytest

from teamster.errors import UsageError
from teamster.spine.plan.plan import Plan
from teamster.spine.plan.store import PlanStore, name_of

PLANS = [Plan("thread", 8, "it waits"), Plan("process", 2, "it computes")]


class Callable:
    def __call__(self, item: int) -> int:
        return item


def test_what_was_recorded_is_repeated_call_by_call(tmp_path: Path) -> None:
    first = PlanStore(str(tmp_path / "plans.json"))
    for plan in PLANS:
        name, known = first.next_call(abs)
        assert known is None
        first.record(name, plan)
    first.write()
    second = PlanStore(str(tmp_path / "plans.json"))
    assert [second.next_call(abs)[1] for _ in range(4)] == [*PLANS, PLANS[1], PLANS[1]]
    assert second.next_call(len)[1] is None
    second.record("builtins:len#0", PLANS[0])
    second.write()
    assert set(json.loads((tmp_path / "plans.json").read_text())["plans"]) == {
        "builtins:abs#0",
        "builtins:abs#1",
        "builtins:len#0",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["plans.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"plans": 3}',
        '{"plans": {"a": {}}}',
        '{"plans": {"a": {"backend": 1, "workers": 1}}}',
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "plans.json").write_text(text)
    with pytest.raises(
        UsageError, match=r"holds no plans .* remove it to record new ones"
    ) as caught:
        PlanStore(str(tmp_path / "plans.json"))
    assert "\n" not in str(caught.value)


def test_many_calls_write_once_a_second(tmp_path: Path) -> None:
    store = PlanStore(str(tmp_path / "plans.json"))
    for number in range(500):
        store.record(f"a#{number}", PLANS[0])
    assert len(json.loads((tmp_path / "plans.json").read_text())["plans"]) < 500
    store._write_the_rest()
    assert len(json.loads((tmp_path / "plans.json").read_text())["plans"]) == 500


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"TEAMSTER_PLAN_FILE: .*missing is no folder that can be written to"
    ):
        PlanStore(str(tmp_path / "missing" / "plans.json"))
    with pytest.raises(UsageError, match="TEAMSTER_PLAN_FILE: cannot read"):
        PlanStore(str(tmp_path))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    store = PlanStore(str(tmp_path / "plans.json"))
    store.record("a#0", PLANS[0])
    store.write()
    (tmp_path / f".plans.json.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(UsageError, match=r"cannot write .*No space left"):
        store.record("b#0", PLANS[1])
        store.write()
    assert set(json.loads((tmp_path / "plans.json").read_text())["plans"]) == {"a#0"}


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (json.dumps, "json:dumps"),
        (functools.partial(json.dumps, indent=1), "json:dumps"),
        (Callable(), f"{__name__}:Callable"),
        (Callable().__call__, f"{__name__}:Callable.__call__"),
        (len, "builtins:len"),
    ],
)
def test_names(function: object, name: str) -> None:
    assert name_of(function) == name
