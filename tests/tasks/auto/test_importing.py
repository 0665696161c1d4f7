# SPDX-License-Identifier: BSD-3-Clause
"""Maps at the top level of a module."""

from __future__ import annotations

import pytest

from tests.conftest import RunScript

MODULE = """
import teamster as ts

def own_name(_):
    import settings_of_field
    return settings_of_field.__name__

with ts.Pool(BACKEND) as pool:
    NAMES = pool.map(own_name, range(3))
    PLAN = pool.plan
"""
SCRIPT = """
import sys, threading
open("settings_of_field.py", "w").write(MODULE.replace("BACKEND", repr(sys.argv[1])))
sys.path.insert(0, ".")
if sys.argv[2] == "thread":
    thread = threading.Thread(target=__import__, args=("settings_of_field",))
    thread.start()
    thread.join()
import settings_of_field
print(settings_of_field.NAMES, settings_of_field.PLAN.choice)
"""


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("backend", ["thread", "auto", "serial"])
def test_a_module_may_map_what_imports_it_back(backend: str, where: str, run_script: RunScript) -> None:
    """A thread would wait for the module, and the module for the thread."""
    script = run_script(f"MODULE = {MODULE!r}" + SCRIPT, backend, where)
    assert (script.returncode, script.stdout, script.stderr) == (0, f"{['settings_of_field'] * 3} serial\n", "")
