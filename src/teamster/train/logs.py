# SPDX-License-Identifier: BSD-3-Clause
"""What a training says of itself: handed to a thread, so that no step waits for a disk.

::

    log(loss=...) --> bounded queue --> thread --> TensorBoard event files, metrics.jsonl, callables
                      the oldest go where it is full, and are counted

A tensor is read by the thread: a step does not wait until a device has computed it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from teamster.errors import UsageError
from teamster.spine.workers.inbox_thread import InboxThread, Take
from teamster.train.shards import whole_of

_MOST = 10_000  # records on their way; a few MB of scalars
_END_S = 60.0  # how long a close waits for what is on its way


class Record(NamedTuple):
    """Something to log.

    Attributes:
        kind: "scalars", "image", "text" or "histogram".
        step: of the training.
        time_s: since the epoch.
        values: by name.
    """

    kind: str
    step: int
    time_s: float
    values: dict[str, Any]


class Logger(Protocol):
    """Takes records, in one thread."""

    def write(self, record: Record) -> None:
        """Write one."""

    def close(self) -> None:
        """There are no more."""


class JsonLines:
    """Scalars and texts as lines of JSON.

    Args:
        path: of the file, which is added to.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  # until close

    def write(self, record: Record) -> None:
        """A line of it; images and histograms are not for text."""
        if record.kind in ("scalars", "text"):
            line = {"step": record.step, "time": record.time_s, **record.values}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Event files, by the writer that comes with torch.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, record: Record) -> None:
        """Each value under its name."""
        add = {
            "scalars": self._writer.add_scalar,
            "image": self._writer.add_image,
            "text": self._writer.add_text,
            "histogram": self._writer.add_histogram,
        }[record.kind]
        for name, value in record.values.items():
            add(name, value, record.step, walltime=record.time_s)

    def close(self) -> None:
        """Flush, and close the files."""
        self._writer.close()


class _Calling:
    """A function of the user's."""

    def __init__(self, function: Callable[[Record], object]) -> None:
        self._function = function

    def write(self, record: Record) -> None:
        self._function(record)

    def close(self) -> None:
        """Nothing to do."""


def loggers_of(given: Sequence[Any]) -> list[Logger]:
    """What a user has named: folders, and functions of a record.

    Args:
        given: paths or callables.

    Raises:
        UsageError: one is neither.

    Example:
        >>> len(loggers_of([print]))
        1
    """
    found: list[Logger] = []
    for each in given:
        if isinstance(each, (str, os.PathLike)):
            folder = Path(each)
            found.append(JsonLines(folder / "metrics.jsonl"))
            with contextlib.suppress(ImportError):  # TensorBoard is not installed
                found.append(TensorBoard(folder))
        elif callable(each):
            found.append(_Calling(each))
        else:
            raise UsageError(
                f"loggers= takes folders and functions of a record; not {type(each).__name__}"
            )
    return found


class Log:
    """The queue, and the thread that empties it.

    Args:
        loggers: makes those who get the records.
        most: records on their way.

    Attributes:
        dropped: records that were too many.

    Example:
        >>> seen = []
        >>> log = Log(lambda: loggers_of([seen.append]))
        >>> log.add("scalars", 3, {"loss": torch.tensor(0.5)})
        >>> log.close()
        >>> seen[0].step, seen[0].values
        (3, {'loss': 0.5})
    """

    def __init__(self, loggers: Callable[[], Sequence[Logger]], most: int = _MOST) -> None:
        self._make = loggers
        self._loggers = list(loggers())
        self._closed = False
        self._records: deque[Record] = deque(maxlen=most)
        self._thread: InboxThread | None = None
        self.dropped = 0

    def add(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Have something logged.

        Args:
            kind: as of a `Record`.
            step: of the training.
            values: by name; tensors are read later.
        """
        if self._closed:  # a step after a close begins anew, too
            self._loggers, self._closed = list(self._make()), False
        if not self._loggers:
            return
        records = self._records
        if len(records) == records.maxlen:
            self.dropped += 1
        kept = {name: _of_now(value) for name, value in values.items()}
        records.append(Record(kind, step, time.time(), kept))
        if self._thread is None:
            self._thread = InboxThread("teamster-log", _write_all, records, self._loggers)
            self._thread.start()
        self._thread.put(True)

    def close(self) -> None:
        """Until all is written; a later `add` begins anew with the same loggers."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.end()
            thread.join(_END_S)
        for each in self._loggers:
            each.close()
        self._loggers, self._closed = [], True


def _of_now(value: Any) -> Any:
    """The next step may change a tensor: parameters, sums."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _whole(values: dict[str, Any]) -> dict[str, Any]:
    """Tensors of which each rank has a part: all ranks put them together, before one writes them.

    In the thread that writes, one alone would wait for the others.
    """
    return {
        name: whole_of(value.detach()) if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }


def _write_all(take: Take, records: deque[Record], loggers: list[Logger]) -> None:
    while take() is not None:
        try:
            record = records.popleft()
        except IndexError:  # it was one too many
            continue
        record = record._replace(values=_read(record))
        for each in list(loggers):
            try:
                each.write(record)
            except Exception as error:
                loggers.remove(each)
                told = f"nothing more is logged by {type(each).__name__}: {error!r}"
                warnings.warn(told, stacklevel=1)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        told = f"log({name}=...) takes one number, not {type(value).__name__}; nan stands for it"
        warnings.warn(told, stacklevel=1)
        return float("nan")


def _read(record: Record) -> dict[str, Any]:
    """Values off their devices; scalars as float."""
    if record.kind == "scalars":
        return {name: _number(name, value) for name, value in record.values.items()}
    return {
        name: value.detach().cpu() if isinstance(value, torch.Tensor) else value
        for name, value in record.values.items()
    }


class Logged:
    """What `Trainer` has of it."""

    _log: Log
    _steps: int

    def log(self, **scalars: Any) -> None:
        """Log numbers of this step; a thread writes them.

        Args:
            **scalars: numbers, or tensors of one, which are read when they are there.

        Example:
            >>> from teamster.train import Trainer
            >>> model = torch.nn.Linear(1, 1)
            >>> optimizer = torch.optim.SGD(model.parameters())
            >>> records = []
            >>> with Trainer(model, optimizer, "single", loggers=[records.append]) as trainer:
            ...     trainer.log(loss=torch.tensor(0.5))
            >>> records[0].values
            {'loss': 0.5}
        """
        self._log.add("scalars", self._steps, _whole(scalars))

    def log_image(self, name: str, image: Any) -> None:
        """Log an image, of shape (channels, height, width), for TensorBoard.

        Args:
            name: of it.
            image: a tensor or array.
        """
        self._log.add("image", self._steps, _whole({name: image}))

    def log_text(self, name: str, text: str) -> None:
        """Log a text.

        Args:
            name: of it.
            text: itself.
        """
        self._log.add("text", self._steps, {name: text})

    def log_histogram(self, name: str, values: Any) -> None:
        """Log the distribution of numbers, for TensorBoard.

        Args:
            name: of it.
            values: a tensor or array of any shape.
        """
        self._log.add("histogram", self._steps, _whole({name: values}))
