# SPDX-License-Identifier: BSD-3-Clause
"""``value is UNSET`` is true of the one that has travelled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = """
import dataclasses, multiprocessing, sys
import teamster as ts
sys.path.append(sys.argv[1])
import library

class Marker: pass
UNSET, AUTO = object(), Marker()
class Option:
    mode = AUTO
    def __init__(self, value=UNSET): self.value = value
def look(option): return option.value is UNSET, option.mode is AUTO
@dataclasses.dataclass
class Base:
    a: int
    b: list = dataclasses.field(default_factory=list)
def derive(_):
    @dataclasses.dataclass
    class Derived(Base):
        c: int = 3
    names = [each.name for each in dataclasses.fields(Base) if each.default is dataclasses.MISSING]
    return repr(Derived(1)), names
def busy(item):
    for k in range(60_000): k ^ 3
    return item is UNSET, item is library.NOTHING

for backend in ("process", "thread"):
    with ts.Pool(backend, workers=2) as pool:
        assert pool.map(look, [Option(), Option(1)]) == [(True, True), (False, True)]
        assert pool.map(derive, [0]) == [derive(0)]
        assert all(each.value is UNSET for each in pool.map(lambda _: Option(), range(3)))
        assert pool.map(lambda _: (UNSET, library.NOTHING), [0]) == [(UNSET, library.NOTHING)]
        items = [library.NOTHING, object()]
        assert pool.map(lambda item: item is library.NOTHING, items) == [True, False]
assert ts.map(busy, [UNSET, library.NOTHING] * 80) == [(True, False), (False, True)] * 80
print("the same")
"""


def test_a_sentinel_is_one_object_everywhere(
    tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    (tmp_path / "library.py").write_text("NOTHING = object()\n")
    script = run_script(PROGRAM, str(tmp_path), timeout=60)
    assert (script.stdout, script.stderr) == ("the same\n", "")
