# SPDX-License-Identifier: BSD-3-Clause
"""What process workers know of functions.

Each worker gets a function once, and what that carries of large things in one segment for all.
"""

from __future__ import annotations

import contextvars
from typing import Any

from teamster.spine.transport.channel import Encoded
from teamster.spine.transport.pickled import pack_function
from teamster.spine.transport.shared_parcel import SharedParcel
from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.context_vars import carry
from teamster.spine.workers.exceptions import transfer_error
from teamster.spine.workers.library_state import dump, since, take
from teamster.spine.workers.process.handle import ProcessHandle
from teamster.spine.workers.seeds import loaded_generators


class Functions:
    """The functions of one backend, as messages to its workers."""

    def __init__(self) -> None:
        self._shared: dict[int, SharedParcel] = {}  # of functions that carry something large
        self._settled_bytes = 0  # of segments that are gone

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Pickle the function, and what of the context can travel.

        Raises:
            TransferError: the function does not pickle.
        """
        try:
            spec.parcel = pack_function(spec.function)
        except Exception as reason:
            raise transfer_error(
                f"the function {getattr(spec.function, '__qualname__', spec.function)!r}", reason
            ) from reason
        spec.context = carry(context) if len(context) else []
        spec.state = take()

    def definition(self, worker: ProcessHandle, spec: FunctionSpec) -> tuple[Any, ...]:
        """The message that tells a worker of a function."""
        generators = loaded_generators() if spec.seed is not None else ()
        surroundings = spec.context, dump(since(worker.child.state, spec.state))
        how = (spec.style, spec.seed, spec.one_by_one, spec.low_latency, *surroundings, generators)
        message = "spec", spec.identity, how, self._stow(worker, spec)
        worker.known.add(spec.identity)
        return message

    def _stow(self, worker: ProcessHandle, spec: FunctionSpec) -> Encoded:
        if not spec.parcel.buffers:
            return worker.channel.stow(spec.parcel)
        if (shared := self._shared.get(spec.identity)) is None:
            shared = self._shared[spec.identity] = SharedParcel(spec.parcel)
        return shared.stow(worker.channel)

    def forget(self, spec: FunctionSpec) -> None:
        """No call will use this function again."""
        if shared := self._shared.pop(spec.identity, None):
            self._settled_bytes += shared.nbytes
            shared.close()

    def bytes_shared(self) -> int:
        """Bytes that went through segments, so far."""
        return self._settled_bytes + sum(shared.nbytes for shared in self._shared.values())

    def close(self) -> None:
        """Let go of all segments."""
        for shared in self._shared.values():
            shared.close()
