# SPDX-License-Identifier: BSD-3-Clause
"""The GPUs that this process can use, found without touching them.

Asking CUDA starts it: a context takes some hundred megabytes of the first GPU, and a process forked
afterwards cannot use any GPU. Looking must not do that, so torch is asked only where the user's
program has started CUDA already; otherwise ``nvidia-smi`` is, which is another process, and failing
that torch's count through NVML.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Seconds; without its persistence daemon nvidia-smi takes a second, with a sick driver for ever
SMI_TIMEOUT = 2.0
_QUERY = ("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Its number for this process, as in ``cuda:0``, after ``CUDA_VISIBLE_DEVICES``.
        name: The maker's name for it.
        memory_bytes: Its memory in bytes; 0 where only starting CUDA would tell.

    Example:
        >>> Gpu(index=0, name="NVIDIA H200", memory_bytes=150_754_820_096).name
        'NVIDIA H200'
    """

    index: int
    name: str
    memory_bytes: int


def find_gpus(root: str = "/", *, environ: Mapping[str, str] | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that this process can use.

    Never imports torch and never starts CUDA. Takes microseconds where neither torch nor
    ``nvidia-smi`` is there, and at most about 2 s where ``nvidia-smi`` hangs.

    Args:
        root: The folder under which the folders of ``PATH`` are searched for ``nvidia-smi``.
        environ: The environment variables (``PATH``, ``CUDA_VISIBLE_DEVICES``); default: this
            process's.

    Returns:
        The GPUs by rising index, none where none is found.

    Example:
        >>> [gpu.index for gpu in find_gpus()] == list(range(len(find_gpus())))
        True
    """
    variables = os.environ if environ is None else environ
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if not hasattr(cuda, "is_initialized"):
        cuda = None  # no torch, or another thread is still importing it
    if cuda is not None and cuda.is_initialized():
        return _gpus_of_started_torch(cuda)
    program = _find_program("nvidia-smi", root, variables.get("PATH", os.defpath))
    if program is not None:
        rows = _parse_smi(_ask_smi(program))
        if rows:
            visible = _visible(rows, variables.get("CUDA_VISIBLE_DEVICES"))
            return tuple(Gpu(index, name, size) for index, (_, name, size) in enumerate(visible))
    if cuda is not None:
        return tuple(
            Gpu(index, f"CUDA device {index}", 0) for index in range(int(cuda.device_count()))
        )
    return ()


def _gpus_of_started_torch(cuda: Any) -> tuple[Gpu, ...]:
    properties = [cuda.get_device_properties(index) for index in range(cuda.device_count())]
    return tuple(
        Gpu(index, str(gpu.name), int(gpu.total_memory)) for index, gpu in enumerate(properties)
    )


def _find_program(name: str, root: str, search_path: str) -> str | None:
    """Return where a program is; shutil.which would do, and importing shutil costs 7 ms."""
    for folder in search_path.split(os.pathsep):
        program = f"{root.rstrip('/')}/{folder.strip('/')}/{name}" if folder.startswith("/") else ""
        if program and os.access(program, os.X_OK) and os.path.isfile(program):
            return program
    return None


def _ask_smi(program: str) -> str:
    """Return what nvidia-smi prints, or nothing when it fails or takes too long."""
    import contextlib
    import subprocess

    try:
        process = subprocess.Popen(
            [program, *_QUERY],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return ""
    try:
        output, _ = process.communicate(timeout=SMI_TIMEOUT)
        return output.decode("utf-8", "replace") if process.returncode == 0 else ""
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # subprocess.run() waits here for ever when the driver hangs and the process cannot die.
            process.wait(timeout=0.2)
        return ""
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _parse_smi(text: str) -> list[tuple[str, str, int]]:
    """Return (uuid, name, memory in bytes) for each line ``uuid, name, MiB``."""
    rows = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) >= 3 and fields[0].startswith("GPU-"):
            # A GPU that shares the computer's memory answers "[N/A]".
            size = int(fields[-1]) * 2**20 if fields[-1].isdecimal() else 0
            rows.append((fields[0], ", ".join(fields[1:-1]), size))
    return rows


def _visible(rows: list[tuple[str, str, int]], wanted: str | None) -> list[tuple[str, str, int]]:
    """Keep what CUDA_VISIBLE_DEVICES lets CUDA see, in its order.

    As CUDA does, stop at the first unknown entry. Slices of a GPU (``MIG-...``) are not in
    nvidia-smi's list of GPUs: then all GPUs are kept, as the nearest truth.
    """
    if wanted is None or "MIG-" in wanted:
        return rows
    kept = []
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.isdecimal() and int(entry) < len(rows):
            kept.append(rows[int(entry)])
        else:
            matches = [row for row in rows if entry.startswith("GPU-") and row[0].startswith(entry)]
            if not matches:
                break
            kept.append(matches[0])
    return kept
