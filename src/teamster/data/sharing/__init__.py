# SPDX-License-Identifier: BSD-3-Clause
"""One loader for several programs of a user: one prepares the batches, all get them.

::

    the program that has the name (rendezvous.py)         each of the others
      preparing: a thread draws batches  --> window         joining: asks for the next batch
                 a thread answers        <-- socket -->                of its epoch
                 its own loop            <-- window

    window     batches that were made and not taken by all yet, who is where, who is dropped
    preparing  the threads of the program that prepares
    joining    what a loader sees of it: epochs and batches, whoever prepares them

All draw the order of an epoch from the same state of generators, which the one that prepares has
told them. So whoever is too slow, or finds that the other has ended, knows what comes next, and
makes it, or goes on preparing for all.
"""
