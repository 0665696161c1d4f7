# SPDX-License-Identifier: BSD-3-Clause
"""What plain pickle cannot send: definitions of the program, by value or by a key.

::

    pickler      three picklers: items, definitions, results     classes, locks, context_variables
    modules      what is by value, and where it is put           namespaces, mentions, told
    originals    what both sides know by a key                   sentinels
    definitions  what one peer has been told
"""
