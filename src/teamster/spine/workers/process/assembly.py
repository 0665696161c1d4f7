# SPDX-License-Identifier: BSD-3-Clause
"""The first step of a team of processes.

The fork server starts, and comes up while the program loads what drives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from teamster.errors import StartMethodRefused
from teamster.spine.workers.process.forkserver import the_fork_server
from teamster.spine.workers.worker_info import module_being_imported

if TYPE_CHECKING:
    from teamster.spine.workers.backend import Staff
    from teamster.spine.workers.process.backend import ProcessBackend


def make_backend(staff: Staff) -> ProcessBackend:
    """The backend of a team of processes.

    Raises:
        StartMethodRefused: this worker is in the middle of an import.
        Exception: the initializer does not pickle.
    """
    refuse_while_importing()
    if staff.start_method != "fork":
        the_fork_server(staff.preload).warm_up()
    from teamster.spine.workers.process.backend import ProcessBackend

    return ProcessBackend(staff)


def refuse_while_importing() -> None:
    """End a chain that would never end.

    The workers would import the same module, and start workers.

    Raises:
        StartMethodRefused: this worker is in the middle of that.
    """
    module = module_being_imported()
    if module is not None:
        raise StartMethodRefused(
            f"processes are started while a worker imports {module}: every worker would import it "
            "and start workers, without end. Put that call into a function, "
            "or under if __name__ == '__main__'"
        )
