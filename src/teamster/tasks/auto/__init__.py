# SPDX-License-Identifier: BSD-3-Clause
"""What "auto" does.

::

    planner     the plan of a pool: a fixed kind, or a call that chooses while it runs
    measured    that call: who gets the next items      changing   how workers take over
    own_items   the caller's share of it                doubtful   failures that are the place's
    caller      the loop in the caller's thread         caller_clock, supply
    steering    evidence, rates, time -> candidate      throughput, alone
    import_check   would a new process find what is here?
"""
