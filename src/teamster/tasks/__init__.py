# SPDX-License-Identifier: BSD-3-Clause
"""Functions over many inputs, and what users hold.

::

    api              map, imap, explain     pool     Pool, over one or more teams (teams)
    arguments        checked values         progress, results, source, lent (inputs valid once)
    mapping          one map call           auto/    one that chooses while it runs
    submitting       calls of submit        futures, gate, definitions (their functions)
    executor         for libraries that ask for one          own_executor   ts.Executor
    spawning         ts.spawn, its process  keeper, child_call; spawned: the process's own side
    monitor/         pools as others see them
"""
