# SPDX-License-Identifier: BSD-3-Clause
"""What `torch.utils.data.get_worker_info()` tells in workers that are threads.

torch keeps one answer a process. So that names which a program has imported already ask here, too,
the code of that function is replaced once: it looks into the calling thread first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from torch.utils.data._utils import worker as torch_worker

_here = threading.local()
_lock = threading.Lock()
Result = TypeVar("Result")


def _answer() -> Any:
    return getattr(_teamster_here, "info", _worker_info)  # type: ignore[name-defined]  # noqa: F821


def enter_thread(number: int, workers: int, seed: int, dataset: Any) -> None:
    """The calling thread is a worker from now on.

    Args:
        number: of the worker.
        workers: how many there are.
        seed: of the worker, as torch's own have one.
        dataset: that it reads.

    Example:
        >>> thread = threading.Thread(
        ...     target=lambda: (enter_thread(1, 2, 7, []), print(torch_worker.get_worker_info().id))
        ... )
        >>> thread.start(); thread.join()
        1
        >>> torch_worker.get_worker_info() is None
        True
    """
    with _lock:
        names: Any = vars(torch_worker)
        if names.get("_teamster_here") is None:
            names["_teamster_here"] = _here
            torch_worker.get_worker_info.__code__ = _answer.__code__
    method = (
        {"worker_method": "thread"} if hasattr(torch_worker.WorkerInfo, "worker_method") else {}
    )
    info = torch_worker.WorkerInfo(
        id=number, num_workers=workers, seed=seed, dataset=dataset, **method
    )
    _here.info = info


def is_entered() -> bool:
    """Whether the calling thread is a worker."""
    return hasattr(_here, "info")


def as_no_worker(collate: Callable[[Any], Result], samples: Any) -> Result:
    """Collate where `get_worker_info()` gives None.

    Torch's own collation puts tensors of workers into shared memory of its own, a new segment each
    time; ours travel another way, and those of threads not at all.

    Args:
        collate: called with the samples.
        samples: of a batch.

    Returns:
        What it returns.

    Example:
        >>> as_no_worker(lambda samples: (samples, torch_worker.get_worker_info()), [1])
        ([1], None)
    """
    of_thread, of_process = getattr(_here, "info", None), torch_worker._worker_info
    if of_thread is None and of_process is None:
        return collate(samples)
    vars(_here).pop("info", None)
    torch_worker._worker_info = None
    try:
        return collate(samples)
    finally:
        if of_thread is not None:
            _here.info = of_thread
        if of_process is not None:
            torch_worker._worker_info = of_process
