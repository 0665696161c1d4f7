# SPDX-License-Identifier: BSD-3-Clause
"""How data gets to a worker and back.

It goes through pickled.py (objects to bytes), arena.py (buffers in shared memory) and channel.py
(messages).

::

    object -pickled-> Parcel: data + buffers + descriptors  by_value/: what plain pickle cannot send
                                                            tensors: as buffers
    Parcel -channel-> message, segments of the arena        sockets, polling, mapping: what both
                                                            stand on
"""
