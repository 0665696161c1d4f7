# SPDX-License-Identifier: BSD-3-Clause
"""The workers, which do the work, and die.

What every kind of worker promises is in here, four kinds that keep it, and a team that hands out
and recovers.

::

    backends     from a kind (teamster/kinds.py) to a Team
    team         the callers that wait, and which leads        waiting, calls
    closing      the end of a team
    dispatcher   the queue, and which worker holds what
    reports      what comes back                               recovery, death
    stragglers   timeouts, items taken back, results fetched
    backend      what a kind promises                          handle, batch
    serial  threads  process/  interpreter/
    runner       the loop that calls the function
    scoreboard   what a worker does right now, without a lock

    inbox_thread, lockstep      threads that stay, also under replicas and stages
    library_state     what the program has set: settings, package_settings, logging_settings
"""
