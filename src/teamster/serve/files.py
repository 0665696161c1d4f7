# SPDX-License-Identifier: BSD-3-Clause
"""Models in files: TorchScript, and what torch.export has saved."""

from __future__ import annotations

import warnings
from typing import Any

from teamster.errors import UsageError

_EXPORTED = ".pt2"
SUFFIXES = ".pt", ".pth", ".ts", ".torchscript", _EXPORTED


def load_file(path: str) -> Any:
    """A module out of a file.

    Args:
        path: ends with one of `SUFFIXES`.

    Raises:
        UsageError: it is not there, holds something else, or PyTorch is not installed.

    Example:
        >>> load_file("missing.pt")
        Traceback (most recent call last):
            ...
        teamster.errors.UsageError: cannot load missing.pt: ...
    """
    try:
        import torch
    except ImportError:
        raise UsageError(f"{path} is read by PyTorch, which is not installed") from None
    try:
        if path.endswith(_EXPORTED):
            return torch.export.load(path).module()
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            return torch.jit.load(path)
    except (OSError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot load {path}: {line} (a state_dict has no code: give package.module:model)"
        ) from None
