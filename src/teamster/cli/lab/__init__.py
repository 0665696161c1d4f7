# SPDX-License-Identifier: BSD-3-Clause
"""``teamster lab``: the four classic experiments, and a report that one can learn from.

::

    command --> conducting --> runs: each experiment (experiments) under each way, recorded
                   |               work:   what is run
                   |               server: what is downloaded from
                   +---------> report: one page of words (words, summary) and pictures
"""
