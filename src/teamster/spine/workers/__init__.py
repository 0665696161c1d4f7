# SPDX-License-Identifier: BSD-3-Clause
"""Who does the work, and dies: what every kind of worker promises, four kinds that keep it, a team that hands out and recovers.

::

    backends     from a kind (teamster/kinds.py) to a Team        closing      the end of a team
    team         who waits, and leads        waiting, calls       dispatcher   queue, who holds what
    reports      what comes back             recovery, death      stragglers   timeouts, items taken back, results fetched
    backend      what a kind promises        handle, batch        runner       the loop that calls the function
    serial  threads  process/  interpreter/                       scoreboard   what a worker does right now, without a lock

    inbox_thread, lockstep      threads that stay, also under replicas and stages
    library_state, settings     what the program has set around its functions
"""
