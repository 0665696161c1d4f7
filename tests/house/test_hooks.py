# SPDX-License-Identifier: BSD-3-Clause
"""Fork hooks and exit hooks are those of lifetime.py."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "teamster"
HOOKS = {"register_at_fork", "_register_atexit"}
ALLOWED = {
    "lifetime.py": "it is the place",
    "spine/workers/process/kinship.py": "puts multiprocessing's own exit function back into a "
    "worker that was forked",
}


def test_nobody_hooks_into_forks_and_ends_but_lifetime() -> None:
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and (
                node.attr in HOOKS
                or (
                    node.attr == "register"
                    and isinstance(node.value, ast.Name)
                    and node.value.id == "atexit"
                )
            ):
                found.add(path.relative_to(SOURCE).as_posix())
    assert found == set(ALLOWED)
