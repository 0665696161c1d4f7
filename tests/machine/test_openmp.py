# SPDX-License-Identifier: BSD-3-Clause
"""Helpers of OpenMP are parked or let go where there are some, and nothing happens where there are
none.
"""

from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from teamster.machine import openmp
from tests.conftest import RunScript


@pytest.fixture(autouse=True)
def unlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had asked before."""
    monkeypatch.setattr(openmp, "_library", None)
    monkeypatch.setattr(openmp, "_looked", -1)


class FakeGomp:
    """A library that keeps a list of what it was asked."""

    def __init__(
        self, threads: int = 4, level: int = 0, code: int = 0, interrupt_at: str = ""
    ) -> None:
        self.asked: list[str] = []
        self.wait = None
        self._threads, self._level, self._code = threads, level, code
        self._interrupt_at = interrupt_at

    def most_threads(self) -> int:
        return self._threads

    def level(self) -> int:
        return self._level

    def pause(self, kind: int) -> int:
        self.asked.append(f"pause {kind}")
        return self._code

    def init(self, *_: int) -> None:
        self.asked.append("init")

    def start(self, wait: object, semaphore: int, threads: int) -> None:
        self._level += 1
        self.asked.append(f"start {threads}")

    def post(self, semaphore: int) -> None:
        self._told("post")

    def end(self) -> None:
        self._told("end")
        self._level -= 1

    def _told(self, what: str) -> None:
        self.asked.append(what)
        if what == self._interrupt_at:
            self._interrupt_at = ""
            raise KeyboardInterrupt


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeGomp]:
    """Makes such a library, which is the one that is found."""

    def make(**options: Any) -> FakeGomp:
        made = FakeGomp(**options)
        monkeypatch.setattr(openmp, "_library", made)
        return made

    return make


def fake_maps(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    real = builtins.open

    def opened(path: Any, *arguments: Any, **options: Any) -> Any:
        return io.StringIO(text) if path == "/proc/self/maps" else real(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", opened)


LINE = "7f0000000000-7f0000001000 r-xp 00000000 00:00 1234   {}\n"


def test_without_openmp_nothing_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_maps(monkeypatch, LINE.format("/lib/libc.so.6"))
    assert openmp.release_helpers() is False


def test_of_several_libraries_torchs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(openmp, "_Gomp", lambda path: taken.append(path) or FakeGomp())
    fake_maps(monkeypatch, LINE.format("/a/libgomp.so.1") + LINE.format("/b/libgomp-x.so.1"))
    assert openmp.release_helpers() is False
    monkeypatch.setattr(openmp, "_looked", -1)
    fake_maps(
        monkeypatch, LINE.format("/a/libgomp.so.1") + LINE.format("/site/torch/lib/libgomp-x.so.1")
    )
    assert openmp.release_helpers() is True
    assert taken == ["/site/torch/lib/libgomp-x.so.1"]


def test_a_library_that_cannot_be_loaded_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_maps(monkeypatch, LINE.format("/nowhere/libgomp.so.1") * 2)
    assert openmp.release_helpers() is False


def test_where_maps_cannot_be_read_nothing_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError

    monkeypatch.setattr(builtins, "open", refused)
    assert openmp.release_helpers() is False


def test_it_looks_again_only_when_a_library_may_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(openmp, "_find", lambda: looks.append(1))
    for _ in range(3):
        openmp.release_helpers()
    assert len(looks) == 1
    monkeypatch.setitem(sys.modules, "a_module_that_has_just_come", openmp)
    openmp.release_helpers()
    assert len(looks) == 2


@pytest.mark.parametrize(("code", "released"), [(0, True), (1, False)])
def test_what_the_library_answers_is_passed_on(
    fake: Callable[..., FakeGomp], code: int, released: bool
) -> None:
    library = fake(code=code)
    assert openmp.release_helpers() is released
    assert library.asked == ["pause 1"]  # softly: what the threads know is kept


def test_each_helper_is_woken_and_the_region_ends(fake: Callable[..., FakeGomp]) -> None:
    library = fake(threads=3)
    with openmp.parked_helpers() as parked:
        assert parked
        assert library.asked == ["init", "start 3"]
    assert library.asked[2:] == ["post", "post", "end"]


def test_the_region_ends_when_what_is_inside_fails(fake: Callable[..., FakeGomp]) -> None:
    library = fake(threads=2)
    with pytest.raises(ZeroDivisionError), openmp.parked_helpers():
        _ = 1 / 0
    assert library.asked[2:] == ["post", "end"]


def test_a_region_that_was_left_open_ends_before_the_next(
    fake: Callable[..., FakeGomp], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = fake(threads=2)
    with monkeypatch.context() as patched, openmp.parked_helpers():
        # As if Ctrl-C had come at its very beginning
        patched.setattr(openmp, "_end", lambda library: None)
        parked = openmp.parked_helpers()
        parked.__enter__()
    with openmp.parked_helpers():
        pass
    assert library.asked[-3:] == ["start 2", "post", "end"]
    assert library.level() == 0


@pytest.mark.parametrize("options", [{"threads": 1}, {"level": 1}])
def test_without_helpers_and_inside_of_a_region_nothing_is_parked(
    fake: Callable[..., FakeGomp], options: dict[str, int]
) -> None:
    library = fake(**options)
    with openmp.parked_helpers() as parked:
        assert not parked
    assert library.asked == []


@pytest.mark.parametrize(
    ("place", "asked"),
    [("post", ["post", "post", "post", "end"]), ("end", ["post", "post", "end"] * 2)],
)
def test_ctrl_c_leaves_no_region_open(
    fake: Callable[..., FakeGomp], place: str, asked: list[str]
) -> None:
    library = fake(threads=3, interrupt_at=place)
    with pytest.raises(KeyboardInterrupt), openmp.parked_helpers():
        pass
    assert library.asked[2:] == asked
    assert library.level() == 0


def test_a_forked_copy_has_no_helpers_to_park(
    fake: Callable[..., FakeGomp], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = fake()
    monkeypatch.setattr(openmp, "_pid", -1)
    with openmp.parked_helpers() as parked:
        assert not parked
    assert not openmp.release_helpers()
    assert library.asked == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_helpers_of_torch_are_parked_and_there_again(run_script: RunScript) -> None:
    found = run_script(
        "import os, torch\n"
        "from teamster.machine.openmp import _look, parked_helpers\n"
        "torch.set_num_threads(3)\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "work = lambda: torch.arange(1 << 20).sum().item()\n"
        "right = work(); helpers = count()\n"
        "for _ in range(50):\n"
        "    with parked_helpers() as parked:\n"
        "        alone = work()\n"
        "    assert work() == alone == right\n"
        "print(parked, count() == helpers, torch.get_num_threads(), _look().level() if parked else "
        "0)\n",
        timeout=30,
    )
    assert found.returncode == 0, found.stderr
    told = found.stdout.split()
    if told[0] == "False":
        pytest.skip("torch here has no GNU OpenMP")
    assert told == ["True", "True", "3", "0"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_helpers_of_torch_end_and_come_back(run_script: RunScript) -> None:
    found = run_script(
        "import os, time, torch\n"
        "from teamster.machine.openmp import release_helpers\n"
        "torch.set_num_threads(3)\n"
        "def count(): return len(os.listdir('/proc/self/task'))\n"
        "work = lambda: torch.randn(1 << 20).exp_().sum().item()\n"
        "before = count(); work(); with_helpers = count()\n"
        "done = release_helpers()\n"
        "until = time.monotonic() + 5\n"
        "while count() >= with_helpers and done and time.monotonic() < until: pass\n"
        "without = count(); work(); again = count()\n"
        "print(done, with_helpers > before, without < with_helpers, again == with_helpers)\n",
        timeout=30,
    )
    assert found.returncode == 0, found.stderr
    told = found.stdout.split()
    if told[0] == "False":
        pytest.skip("torch here has no GNU OpenMP of version 5")
    assert told == ["True", "True", "True", "True"]
