# SPDX-License-Identifier: BSD-3-Clause
"""Programs that share a loader, and one that ends in the middle: the others lose nothing."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Script, StartScript, WaitUntil

COUNT = 160

PROGRAM = """
import json, os, sys, time
from pathlib import Path
import torch
from teamster.data import DataLoader

FOLDER = Path(os.environ["FOLDER"])
NAME, HOW = sys.argv[1], json.loads(sys.argv[2])


class Samples:
    def __len__(self):
        return 160

    def __getitem__(self, index):
        time.sleep(0.001)
        return torch.full((100, 100), float(index)), index


def wait_for(*names):
    until = time.monotonic() + 60
    while not all((FOLDER / name).exists() for name in names):
        assert time.monotonic() < until, names
        time.sleep(0.005)


def file_of(tensor):
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, device, inode, *name = line.split(maxsplit=5)
        begin, end = (int(each, 16) for each in span.split("-"))
        if begin <= address < end:
            return device, int(inode), *name
    raise AssertionError("it is nowhere")


# One has processes: what they are forked from imports torch, and each import costs seconds
how = {"num_workers": 1} if NAME == "a" else {"workers": "inline"}
loader = DataLoader(Samples(), 8, shuffle=True, share="ends", **how, **HOW.get("loader", {}))
(FOLDER / f"{NAME}.ready").touch()
wait_for(HOW["after"])
for epoch in range(HOW["epochs"]):
    seen, files = [], {}
    for images, labels in loader:
        assert (images[:, 50, 50] == labels).all()
        files[str(labels.tolist())] = file_of(images)
        images.zero_()  # its own
        seen += labels.tolist()
        (FOLDER / f"{NAME}.{epoch}.{len(seen)}").touch()
        if len(seen) == HOW.get("stops_at") and epoch == 0:
            (FOLDER / "part").write_text(str(loader._sharing.prepares))
            (FOLDER / "part").rename(FOLDER / f"{NAME}.stopped")
            if "until" not in HOW:
                break
            wait_for(*HOW["until"])
    else:
        print(json.dumps([seen, files, loader._sharing.prepares]), flush=True)
        continue
    break
if HOW.get("deletes it"):
    del loader
if "lasts until" in HOW:
    wait_for(HOW["lasts until"])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where programs meet: a socket's path is short."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sh") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("FOLDER", str(tmp_path))
        yield tmp_path


Begin = Callable[..., list[Script]]


@pytest.fixture
def begin(start_script: StartScript, folder: Path, wait_until: WaitUntil) -> Begin:
    """Start programs, at one time; they go on when the file `after` of each is there."""

    def start(programs: dict[str, dict[str, Any]], epochs: int = 2) -> list[Script]:
        hows = {name: {"after": "go", "epochs": epochs, **how} for name, how in programs.items()}
        started = [start_script(PROGRAM, name, json.dumps(how)) for name, how in hows.items()]
        wait_until(lambda: all((folder / f"{name}.ready").exists() for name in programs), 60)
        return started

    return start


def epochs_of(script: Script) -> list[Any]:
    script.wait(60)
    assert script.returncode == 0, script.stderr
    return [json.loads(line) for line in script.stdout.splitlines()]


def assert_whole(scripts: list[Script], epochs: int) -> list[Any]:
    """Every sample once in each epoch of each."""
    found = [epochs_of(script) for script in scripts]
    assert [len(each) for each in found] == [epochs] * len(scripts)
    for seen, *_ in (epoch for each in found for epoch in each):
        assert sorted(seen) == list(range(COUNT))
    return found


def test_programs_have_a_batch_in_the_same_memory(begin: Begin, folder: Path) -> None:
    """All that take; the one that prepares has the slot that its own loader has filled."""
    late = {"after": "a.stopped", "loader": {"share_late": "now"}}
    # It goes on when the others have begun, in the same epoch, and does not end before them
    first = {"stops_at": 80, "until": ["b.0.8", "c.0.8"], "lasts until": "over"}
    programs = begin({"a": first, "b": late, "c": late}, epochs=1)
    (folder / "go").touch()
    for program in programs[1:]:
        program.wait(60)
    (folder / "over").touch()
    _, one, other = (files for ((_, files, _),) in map(epochs_of, programs))
    assert files_apart(one, other) == []


def files_apart(one: dict[str, Any], other: dict[str, Any]) -> list[Any]:
    """The files of the batches that both have had, by their labels, where they are not the same."""
    common = one.keys() & other.keys()
    assert len(common) >= 5  # of 20
    return [(one[batch], other[batch]) for batch in common if one[batch] != other[batch]]


def test_one_that_takes_only_is_killed_and_the_others_lose_nothing(
    begin: Begin, folder: Path, wait_until: WaitUntil
) -> None:
    ends = {"after": "a.0.8", "stops_at": 80, "until": ["never"]}
    first, killed, other = begin({"a": {}, "b": ends, "c": {"after": "a.0.8"}})
    (folder / "go").touch()
    wait_until(lambda: (folder / "b.stopped").exists(), 60)
    assert (folder / "b.stopped").read_text() == "False"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert_whole([first, other], 2)
    assert killed.stdout == ""  # it was in the middle of an epoch
    wait_until(lambda: not killed.survivors(), seconds=1.0, message="survivors")


@pytest.mark.parametrize(
    "how", [{}, {"deletes it": True, "lasts until": "over"}], ids=["ends", "deletes its loader"]
)
def test_the_one_that_prepares_leaves_its_loop_and_another_goes_on(
    how: dict[str, Any], begin: Begin, folder: Path, wait_until: WaitUntil
) -> None:
    late = {"after": "a.0.8"}
    first, *others = begin({"a": {"stops_at": 80, **how}, "b": late, "c": late})
    (folder / "go").touch()
    wait_until(lambda: (folder / "a.stopped").exists(), 60)
    assert (folder / "a.stopped").read_text() == "True"
    found = assert_whole(others, 2)
    assert any(prepares for epochs in found for *_, prepares in epochs)
    assert first.returncode is None or not how
    (folder / "over").touch()
    assert (epochs_of(first), first.stderr) == ([], "")
