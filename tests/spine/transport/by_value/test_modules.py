# SPDX-License-Identifier: BSD-3-Clause
"""Modules that the program has and another process cannot import by their names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGIN = """
import enum
FACTOR = 3
class Item:
    def __init__(self, value): self.value = value
    def tripled(self): return self.value * FACTOR
class Kind(enum.Enum): A = 1
def triple(n): return n * FACTOR
def make(n): return Item(n), Kind.A
def maker(): return lambda n: n * FACTOR
"""

LOADS = {
    "by its path": "m = load('plugin', 'plugin.py')",
    "a name that is none": "m = load('my-plugin.v2', 'plugin.py')",
    "not in sys.modules": "m = load('plugin', 'plugin.py', register=False)",
    "made up": "m = sys.modules['made_up'] = types.ModuleType('made_up'); "
    "exec(open('plugin.py').read(), m.__dict__)",
    "run": "m = types.SimpleNamespace(**runpy.run_path('plugin.py'))",
    "executed": "space = {}; exec(open('plugin.py').read(), space); "
    "m = types.SimpleNamespace(**space)",
    "found by a finder of the program": (
        "class Finder:\n"
        "    exec_module = staticmethod("
        "lambda module: exec(open('plugin.py').read(), module.__dict__))\n"
        "    create_module = staticmethod(lambda spec: None)\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *_): "
        "return importlib.util.spec_from_loader(name, cls) if name == 'virtual' else None\n"
        "sys.meta_path.insert(0, Finder); import virtual as m"
    ),
    "relative entry": "sys.path.insert(0, 'lib'); import inside as m; os.chdir('/')",
    "package by its path": (
        "spec = importlib.util.spec_from_file_location('pack', 'pack/__init__.py', "
        "submodule_search_locations=['pack'])\n"
        "sys.modules['pack'] = importlib.util.module_from_spec(spec); import pack.core as m"
    ),
}

PROGRAM = """
import importlib.util, os, runpy, sys, types
import teamster as ts

def load(name, path, register=True):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    if register:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

os.chdir(sys.argv[1])
sys.path[:] = [entry for entry in sys.path if entry not in ("", sys.argv[1])]
with ts.Pool("process", workers=2) as pool:
    pool.map(abs, [1, 2])  # workers that were there before the module
    LOAD
    assert pool.map(m.triple, range(4)) == [0, 3, 6, 9]
    assert pool.map(lambda n: m.triple(n), range(4)) == [0, 3, 6, 9]
    assert pool.map(m.maker(), [1]) == [3]
    assert pool.map(m.Item.tripled, [m.Item(2)]) == [6]
    assert pool.map(lambda item: item.tripled(), [m.Item(2)]) == [6]
    made = pool.map(m.make, range(3))
    assert [(type(item), kind) for item, kind in made] == [(m.Item, m.Kind.A)] * 3
    assert pool.map(lambda thing: thing, [m.Item, m.triple, m.Kind]) == [m.Item, m.triple, m.Kind]
print("done")
"""

RELATIVE = """
import sys
import teamster as ts

def lazy(n):
    from .helpers import double
    return double(n)

def parent(n):
    from . import helpers
    return helpers.double(n)

def resource(n):
    import importlib.resources
    return importlib.resources.files(__package__).joinpath("data.txt").read_text()

def names(n):
    return __name__, __package__, __spec__.name, __file__

for function in (lazy, parent, resource, names):
    got = ts.map(function, range(3), backend="process", workers=2)
    print(got == [function(n) for n in range(3)])
"""


@pytest.mark.parametrize("how", LOADS)
def test_a_module_that_only_the_program_finds(
    how: str, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    for name in ("plugin.py", "lib/inside.py", "pack/core.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(
            PLUGIN.replace("import enum", "import enum\nfrom .other import *")
            if "core" in name
            else PLUGIN
        )
    (tmp_path / "pack/__init__.py").touch()
    (tmp_path / "pack/other.py").touch()
    script = run_script(
        PROGRAM.replace("LOAD", LOADS[how].replace("\n", "\n    ")), str(tmp_path), timeout=60
    )
    assert (script.stdout, script.stderr) == ("done\n", "")


@pytest.mark.parametrize("module", ["tool", "tool.cli"])
def test_python_m_with_relative_imports(
    module: str, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    (tmp_path / "tool").mkdir()
    for name, text in {
        "__init__": "",
        "helpers": "def double(n): return 2 * n",
        "__main__": RELATIVE,
        "cli": RELATIVE,
    }.items():
        (tmp_path / f"tool/{name}.py").write_text(text)
    (tmp_path / "tool/data.txt").write_text("data")
    code = (
        f"import os, sys; os.chdir({str(tmp_path)!r}); "
        f"os.execv(sys.executable, [sys.executable, '-m', {module!r}])"
    )
    script = run_script(code, timeout=60)
    assert (script.stdout, script.stderr) == ("True\n" * 4, "")


def test_pytest_that_imports_by_file(tmp_path: Path, run_script: Callable[..., Any]) -> None:
    (tmp_path / "suite/deep").mkdir(parents=True)
    (tmp_path / "suite/deep/test_it.py").write_text(
        PLUGIN + "import teamster as ts\n"
        "def test_it(): "
        "assert ts.map(triple, range(3), backend='process', workers=2) == [0, 3, 6]\n"
        "def test_items(): "
        "assert type(ts.map(Item, [1], backend='process', workers=2)[0]) is Item\n"
    )
    options = ["-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    code = (
        f"import os, sys; os.chdir({str(tmp_path)!r}); "
        f"os.execv(sys.executable, [sys.executable, *{options!r}])"
    )
    script = run_script(code, timeout=60)
    assert "2 passed" in script.stdout, script.stdout


MADE_UP = """
import sys, types
import teamster as ts

class LooksUp(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return len(name)

settings = sys.modules["settings"] = types.ModuleType("settings")
settings.depth = 3
special = sys.modules["special"] = LooksUp("special")
code = sys.modules["code_of_it"] = types.ModuleType("code_of_it")
exec("def twice(n): return 2 * n", vars(code))

def by_global(n): return settings.depth, special.four, code.twice(n)
def by_import(n):
    import settings
    import special as lazy
    from code_of_it import twice
    return settings.depth, lazy.four, twice(n)

with ts.Pool("process", workers=1) as pool:
    for function in (by_import, by_global):
        print(pool.map(function, [1]))
    settings.depth = 4
    print(pool.map(by_import, [1]), [name for name in globals() if " " in name])
"""


def test_modules_that_the_program_has_made_up(run_script: Callable[..., Any]) -> None:
    """Without code, of a class of their own, and named by an import inside of the function."""
    script = run_script(MADE_UP)
    assert script.stdout.splitlines() == ["[(3, 4, 2)]", "[(3, 4, 2)]", "[(4, 4, 2)] []"], (
        script.stderr
    )
