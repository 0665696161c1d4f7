# SPDX-License-Identifier: BSD-3-Clause
"""Whether a function may leave this process.

::

    check         the whole of it, with what the first items show
    captures      what it carries                 fingerprint   whether that has changed
    effects       what its code does to that      instructions, known_effects
    imports       what a new process lacks        patches       what the program has replaced
"""
