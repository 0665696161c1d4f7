# SPDX-License-Identifier: BSD-3-Clause
"""From the bytes of a result to an event; what does not unpickle costs its own item only."""

from __future__ import annotations

import pickle

from teamster.spine.workers.contract import Event, Kept, Lost, Member
from teamster.spine.workers.failure import rebuild, refused


def kept(member: Member, first: int, count: int, failed: bool, data: bytes | memoryview, buffers: list[memoryview]) -> Event:
    """The event for a record of results, or of one failure."""
    if failed:
        return Kept(member, first, [None], rebuild(pickle.loads(data)))
    try:
        return Kept(member, first, pickle.loads(data, buffers=buffers))
    except KeyboardInterrupt:  # the user's Ctrl-C struck here
        raise
    except BaseException as reason:  # a result whose __setstate__ raises must not end whoever reads for all
        return Lost(member, first, count) if count > 1 else Kept(member, first, [None], refused("the result", reason))
