# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of samples that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from teamster.errors import TooManyErrors, UsageError, annotate, first_line

OnError = Literal["raise", "skip", "replace"] | Callable[[Any, BaseException], Any]
"""What to do: a callable gets the index and the error, and returns a sample, or None for none."""

_PROBATION = 100  # samples from which on a share means something
_PATHS = ("samples", "imgs", "paths", "files", "filenames", "image_paths")


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be read.

    Attributes:
        index: of the dataset.
        kind: name of the error's class.
        text: first line of the error.
        file: where the dataset knows it; else empty.
    """

    index: Any
    kind: str
    text: str
    file: str

    def __str__(self) -> str:
        place = f" ({self.file})" if self.file else ""
        return f"sample {self.index}{place}: {self.kind}: {self.text}"


def check_policy(on_error: Any, max_errors: Any, *, iterable: bool = False) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: it says what is expected.

    Example:
        >>> check_policy("skip", 0.01)
    """
    if not callable(on_error) and on_error not in ("raise", "skip", "replace"):
        raise UsageError(
            f"on_error must be 'raise', 'skip', 'replace' or a function, not {on_error!r}"
        )
    if iterable and on_error != "raise":
        raise UsageError(
            "on_error is for datasets with indices: an iterable one that fails has no next sample; "
            "pass over bad samples in its __iter__"
        )
    if max_errors is not None:
        number = isinstance(max_errors, (int, float)) and not isinstance(max_errors, bool)
        if not number or max_errors < 0 or (isinstance(max_errors, float) and max_errors > 1):
            raise UsageError(
                f"max_errors must be a count, or a share from 0.0 to 1.0, not {max_errors!r}"
            )


def describe(dataset: Any, index: Any, error: BaseException) -> Failure:
    """Say which sample it was."""
    return Failure(index, type(error).__name__, first_line(error), file_of(dataset, index))


def note(dataset: Any, index: Any, error: BaseException) -> None:
    """Write the sample's index, and its file, on the error itself."""
    file = file_of(dataset, index)
    annotate(error, f"in sample {index!r} of the dataset{f' ({file})' if file else ''}")


def file_of(dataset: Any, index: Any) -> str:
    """The file of a sample, where the dataset has a list of them.

    Example:
        >>> class Images:
        ...     samples = [("cat.jpg", 0), ("dog.jpg", 1)]
        >>> file_of(Images(), 1)
        'dog.jpg'
    """
    for name in _PATHS:
        paths = getattr(dataset, name, None)
        if not isinstance(paths, Sequence) or not isinstance(index, int):
            continue
        if -len(paths) <= index < len(paths):
            found = paths[index]
            found = found[0] if isinstance(found, tuple) and found else found
            if isinstance(found, str) or hasattr(found, "__fspath__"):
                return str(found)
    return ""


class Tally:
    """Counts failures of a loader, and says when there are too many.

    Args:
        most: a count, or a share of the samples read; None for any number.

    Example:
        >>> tally = Tally(1)
        >>> tally.add([Failure(3, "OSError", "bad file", "")], 10)
        >>> tally.add([Failure(4, "OSError", "bad file", "")], 10)
        Traceback (most recent call last):
        ...
        teamster.errors.TooManyErrors: 2 of 20 samples could not be read...
    """

    def __init__(self, most: float | None) -> None:
        self._most = most
        self.failures: list[Failure] = []
        self._samples = 0

    def add(self, failures: Sequence[Failure], samples: int) -> None:
        """A batch is there.

        Args:
            failures: of it.
            samples: that it was made of, failed ones included.

        Raises:
            TooManyErrors: there are more than `max_errors` by now.
        """
        self._samples += samples
        self.failures += failures
        if not failures or self._most is None:
            return
        count = len(self.failures)
        # A share is judged where there are enough samples for one to be below it
        limit = (
            self._most
            if isinstance(self._most, int)
            else max(1.0, self._most * max(self._samples, _PROBATION))
        )
        if count > limit:
            raise TooManyErrors(
                f"{count:,} of {self._samples:,} samples could not be read, more than "
                f"max_errors={self._most!r}; the latest: {self.failures[-1]}"
            )
