# SPDX-License-Identifier: BSD-3-Clause
"""Several programs, one loader: really several programs."""

from __future__ import annotations

import json
import os
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import teamster as ts
from teamster.data import DataLoader
from tests.conftest import RunScript, Script, StartScript, WaitUntil

PROGRAM = """
import json, os, sys, time, warnings
from pathlib import Path
import torch
from teamster.data import DataLoader

FOLDER = Path(os.environ["FOLDER"])
NAME, EPOCHS, HOW = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
COUNT = 160


class Samples:
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        with open(FOLDER / "reads", "a") as reads:
            reads.write(f"{index}\\n")
        if index == HOW.get("broken"):
            raise OSError(f"sample {index} is broken")
        time.sleep(HOW.get("read_s", 0.0005))
        return torch.full((100, 100), float(index)), index, f"name {index}"


def wait_for(name):
    until = time.monotonic() + 60
    while not (FOLDER / name).exists():
        assert time.monotonic() < until, name
        time.sleep(0.005)


torch.manual_seed(int.from_bytes(NAME.encode(), "little"))
loader = DataLoader(
    Samples(), 8, shuffle=True, share="test", num_workers=1, **HOW.get("loader", {})
)
(FOLDER / f"{NAME}.ready").touch()
wait_for(HOW.get("after", "go"))
for epoch in range(EPOCHS):
    seen, errors = [], []
    batches = iter(loader)
    while True:
        try:
            images, labels, names = next(batches)
        except StopIteration:
            break
        except OSError as error:
            errors.append(str(error))
            continue
        assert (images[:, 50, 50] == labels).all()
        assert list(names) == [f"name {label}" for label in labels.tolist()]
        images.zero_()  # its own
        seen += labels.tolist()
        (FOLDER / f"{NAME}.{epoch}.{len(seen)}").touch()
        time.sleep(HOW.get("step_s", 0.0))
        if len(seen) == HOW.get("stops_at") and epoch == HOW.get("stops_in", 0):
            (FOLDER / f"{NAME}.stopped").write_text(str(loader._sharing.prepares))
            wait_for(HOW.get("until", "never"))
    print(json.dumps([seen, errors, loader._sharing.prepares]), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where programs meet: a socket's path is short."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sh") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("FOLDER", str(tmp_path))
        yield tmp_path


Begin = Callable[..., Script]


@pytest.fixture
def begin(start_script: StartScript, folder: Path, wait_until: WaitUntil) -> Begin:
    def start(name: str, epochs: int = 3, **how: Any) -> Script:
        script = start_script(PROGRAM, name, str(epochs), json.dumps(how))
        wait_until(lambda: (folder / f"{name}.ready").exists(), 60)
        return script

    return start


def epochs_of(script: Script) -> list[Any]:
    script.wait(120)
    assert script.returncode == 0, script.stderr
    return [json.loads(line) for line in script.stdout.splitlines()]


def is_whole(seen: list[int]) -> bool:
    return sorted(seen) == list(range(160))


def test_all_get_the_same_and_each_sample_is_read_about_once(begin: Begin, folder: Path) -> None:
    programs = [begin(name) for name in ("a", "b", "c")]
    (folder / "go").touch()
    found = [epochs_of(program) for program in programs]
    assert all(is_whole(seen) for epochs in found for seen, *_ in epochs)
    orders = [{tuple(seen) for seen, *_ in epochs} for epochs in found]
    assert orders[0] & orders[1] & orders[2]  # their seeds differ
    reads = len((folder / "reads").read_text().splitlines())
    assert reads < 2.5 * 3 * 160  # alone they read 3 times 3 times 160


def test_when_the_one_that_prepares_is_killed_another_goes_on(
    begin: Begin, folder: Path, wait_until: WaitUntil
) -> None:
    first = begin("a", stops_at=40, stops_in=1)
    (folder / "go").touch()
    wait_until(lambda: (folder / "a.0.8").exists(), 30)
    others = [begin(name, 2, after="a.0.8") for name in ("b", "c")]
    wait_until(lambda: (folder / "a.stopped").exists(), 60)
    assert (folder / "a.stopped").read_text() == "True"
    first.send_signal(signal.SIGKILL)
    first.wait()
    found = [epochs_of(program) for program in others]
    assert all(is_whole(seen) for epochs in found for seen, *_ in epochs)
    assert any(prepares for epochs in found for *_, prepares in epochs)
    wait_until(lambda: not list(Path(os.environ["XDG_RUNTIME_DIR"]).glob("teamster/loader-*")), 10)


def test_one_that_stops_holds_the_others_back_for_a_window_only(begin: Begin, folder: Path) -> None:
    slow = begin("a", 1, stops_at=40, until="b.0.160")
    quick = begin("b", 1)
    (folder / "go").touch()
    assert is_whole(epochs_of(quick)[0][0])
    assert is_whole(epochs_of(slow)[0][0])
    assert "not wait for" in slow.stderr + quick.stderr


@pytest.mark.parametrize(("late", "whole"), [("next epoch", True), ("now", False)])
def test_who_comes_late(
    begin: Begin, folder: Path, wait_until: WaitUntil, late: str, whole: bool
) -> None:
    # With "now" it stays there until the second has begun; with the other that waits for its end
    first = begin("a", 2, stops_at=80, until="b.ready" if whole else "b.0.8")
    (folder / "go").touch()
    wait_until(lambda: (folder / "a.stopped").exists(), 60)
    second = begin("b", 1, loader={"share_late": late}, after="a.stopped")
    seen = epochs_of(second)[0][0]
    assert len(set(seen)) == len(seen)
    assert is_whole(seen) is whole
    assert all(is_whole(each) for each, *_ in epochs_of(first))


def test_an_error_comes_in_its_place_to_all(begin: Begin, folder: Path) -> None:
    programs = [begin(name, 1, broken=100) for name in ("a", "b")]
    (folder / "go").touch()
    for program in programs:
        seen, errors, _ = epochs_of(program)[0]
        assert len(seen) == len(set(seen)) == 152
        assert len(errors) == 1
        assert errors[0].startswith("sample 100 is broken")


def test_loaders_of_another_dataset_are_refused(
    begin: Begin, folder: Path, wait_until: WaitUntil
) -> None:
    first = begin("a", 1, stops_at=8, until="over")
    (folder / "go").touch()
    wait_until(lambda: (folder / "a.stopped").exists(), 60)
    failed = ""
    try:
        list(DataLoader(torch.arange(9), 3, share="test", workers="inline"))
    except ts.UsageError as error:
        failed = str(error)
    assert failed == (
        "another loader has the name share='test': dataset is 'Samples' there, and 'Tensor' here"
    )
    (folder / "over").touch()
    assert is_whole(epochs_of(first)[0][0])


def test_the_socket_is_this_users_alone_and_goes_with_the_loader(folder: Path) -> None:
    loader = DataLoader(torch.arange(9), 3, share="mine", workers="inline")
    assert sorted(torch.cat(list(loader)).tolist()) == list(range(9))
    (path,) = Path(os.environ["XDG_RUNTIME_DIR"]).glob("teamster/loader-mine@*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    del loader
    assert not path.exists()


def test_two_iterators_of_one_loader() -> None:
    loader = DataLoader(torch.arange(8), 4, share="two", workers="inline")
    pairs = [(one.tolist(), two.tolist()) for one, two in zip(loader, loader, strict=True)]
    assert pairs == [([0, 1, 2, 3],) * 2, ([4, 5, 6, 7],) * 2]
    one = iter(loader)
    next(one)
    state = loader.state_dict()
    again = DataLoader(torch.arange(8), 4, workers="inline")
    again.load_state_dict(state)
    assert [batch.tolist() for batch in again] == [[4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("how", "says"),
    [({"share": 3}, "must be a name"), ({"share_late": "soon"}, "share_late must be")],
)
def test_what_cannot_be_shared(how: dict[str, Any], says: str) -> None:
    with pytest.raises(ts.UsageError, match=says):
        DataLoader([1], **how)
    with pytest.raises(ts.UsageError, match="letters, digits"):
        list(DataLoader([1], share="a/b", workers="inline"))


class Unpicklable:
    def __init__(self) -> None:
        self.lines = (line for line in "abc")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index


def test_a_dataset_that_no_process_can_have_is_an_error(folder: Path) -> None:
    def failure(loader: DataLoader[Any]) -> str:
        try:
            list(loader)
        except TypeError as error:
            return str(error)
        return ""

    loader = DataLoader(Unpicklable(), 3, share="unpicklable", num_workers=1)
    assert "generator" in failure(loader)


FORKS = """
import os, sys, warnings
from pathlib import Path
import torch
from teamster.data import DataLoader

warnings.simplefilter("ignore", DeprecationWarning)
loader = DataLoader(torch.arange(12), 4, share="test", workers="inline")
assert sum(len(batch) for batch in loader) == 12
folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "teamster"
(socket,) = folder.glob("loader-test@*")
pid = os.fork()
if not pid:
    assert sum(len(batch) for batch in loader) == 12  # as one of the others
    del loader
    sys.exit(0)
for _ in range(50):
    assert sum(len(batch) for batch in loader) == 12
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert socket.exists()
assert sum(len(batch) for batch in loader) == 12
"""


def test_a_forked_copy_is_one_of_the_others(run_script: RunScript, folder: Path) -> None:
    script = run_script(FORKS, timeout=60)
    assert script.returncode == 0, script.stderr


def test_a_sampler_without_a_length_and_pinning() -> None:
    def endless() -> Iterator[list[int]]:
        yield from ([0, 1], [2, 3], [4, 5])

    loader = DataLoader(
        torch.arange(6), batch_sampler=endless(), share="sampler", workers="inline", pin_memory=True
    )
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
