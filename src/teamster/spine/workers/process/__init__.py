# SPDX-License-Identifier: BSD-3-Clause
"""Child processes, and the workers among them.

::

    the program                    the fork server       a child
    children -- start, forking --> forkserver(_main) --> child_main --> an entry point
       ^  child: channel, scoreboard, end                    |            worker: batches,
       |                                                     |              results to result_log
       |                                                     |            tasks/spawned.py: one call
    backend, handle, functions: batches <---- messages ------+    (each is named in messages.py)
    environment, streams, kinship, resource_tracker, main_module: a child is like the program
"""
