# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints in a folder: each whole, or not there.

::

    run/  step-00000040/  .metadata  __0_0.distcp ...   torch.distributed.checkpoint: tensors
                          rest.pickle                   all that is no tensor
                          checksums.json                written last: of every other file
          .step-00000060.<pid>                          on its way: renamed when all is on the disk

A checkpoint counts when its files are those that `checksums.json` names. So a kill at any moment,
or a full disk, leaves the one before as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from teamster.errors import UsageError
from teamster.train.training_state import Tensors

_CHECKSUMS, _REST, _MODEL = "checksums.json", "rest.pickle", "model.safetensors"
_BLOCK_BYTES = 1 << 20  # read at a time
_PREFIX = "step-"


def write(
    folder: Path, step: int, tensors: Tensors, rest: Any, *, keep: int = 3, export: bool = False
) -> Path:
    """Write a checkpoint, and remove the oldest ones.

    Args:
        folder: of the run.
        step: its number.
        tensors: by name.
        rest: what is no tensor.
        keep: how many are to stay.
        export: whether the model is written once more, for programs that read safetensors.

    Returns:
        Where it is.

    Raises:
        OSError: it cannot be written; the others are as they were.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = write(Path(folder), 7, {"a": torch.ones(2)}, {"b": 1})
        ...     read(place), place.name
        (({'a': tensor([1., 1.])}, {'b': 1}), 'step-00000007')
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{_PREFIX}{step:08d}"
    beside = folder / f".{place.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _fill(beside, tensors, rest, export)
        _remove(place)  # of an earlier run, or saved twice
        os.replace(beside, place)
        _sync(folder)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise _reason(error) from error
    _tidy(folder, place, keep)
    return place


def _fill(beside: Path, tensors: Tensors, rest: Any, export: bool) -> None:
    beside.mkdir()
    _write_tensors(beside, tensors)
    (beside / _REST).write_bytes(pickle.dumps(rest))
    if export:
        _export(beside / _MODEL, tensors)
    sums = {each.name: _checksum(each) for each in sorted(beside.iterdir())}
    (beside / _CHECKSUMS).write_text(json.dumps(sums, indent=1))
    for each in beside.iterdir():
        _sync(each)
    _sync(beside)


def _write_tensors(folder: Path, tensors: Tensors) -> None:
    """What `torch.distributed.checkpoint.save` does, without its warning that there is one rank.

    That warning would have to be silenced for all threads.
    """
    from torch.distributed import checkpoint as dcp  # 1.5 s, which no first step waits for

    writer = dcp.FileSystemWriter(folder, single_file_per_rank=True, sync_files=True)
    planner = dcp.DefaultSavePlanner()
    planner.set_up_planner(dict(tensors), writer.storage_meta(), is_coordinator=True)
    writer.set_up_storage_writer(True)
    plan = writer.prepare_local_plan(planner.create_local_plan())
    plans, described = planner.create_global_plan([plan])
    plan = planner.finish_plan(writer.prepare_global_plan(plans)[0])
    results = writer.write_data(plan, planner)
    writer.finish(described, [results.wait()])


def _read_tensors(folder: Path) -> Tensors:
    from torch.distributed import checkpoint as dcp

    reader = dcp.FileSystemReader(folder)
    described = reader.read_metadata()
    tensors = {
        name: torch.empty(each.size, dtype=each.properties.dtype)
        for name, each in described.state_dict_metadata.items()
    }
    planner = dcp.DefaultLoadPlanner()
    planner.set_up_planner(tensors, described, is_coordinator=True)
    reader.set_up_storage_reader(described, is_coordinator=True)
    plan = reader.prepare_local_plan(planner.create_local_plan())
    plan = planner.finish_plan(reader.prepare_global_plan(planner.create_global_plan([plan]))[0])
    reader.read_data(plan, planner).wait()
    return tensors


def _export(path: Path, tensors: Tensors) -> None:
    from safetensors.torch import save_file

    prefix = "model."
    model = {name[len(prefix) :]: each for name, each in tensors.items() if name.startswith(prefix)}
    save_file({name: each.contiguous() for name, each in model.items()}, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value


def _tidy(folder: Path, newest: Path, keep: int) -> None:
    """Remove what is older than the newest ones, and what other writers have left."""
    for place in _by_age(folder)[keep:]:
        if place != newest:
            _remove(place)
    for left in folder.glob(f".{_PREFIX}*"):
        if left.suffix == ".old" or not _is_alive(left.suffix[1:]):
            shutil.rmtree(left, ignore_errors=True)


def _remove(place: Path) -> None:
    """Out of sight first: a kill in the middle leaves no half of one."""
    if place.exists():
        aside = place.with_name(f".{place.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(place, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _reason(error: BaseException) -> BaseException:
    """What the system has said; torch's writer says something else when it closes its file."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return OSError(found.errno, found.strerror, found.filename)
        found = found.__context__
    return error


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and Path("/proc", pid).exists()


def _by_age(folder: Path) -> list[Path]:
    """The newest first."""
    found = [each for each in folder.glob(f"{_PREFIX}*") if each.name[len(_PREFIX) :].isdigit()]
    return sorted(found, key=lambda each: int(each.name[len(_PREFIX) :]), reverse=True)


def is_whole(place: Path) -> bool:
    """Whether all files of a checkpoint are as they were written.

    Args:
        place: its folder.
    """
    try:
        sums = json.loads((place / _CHECKSUMS).read_text())
        return all(_checksum(place / name) == value for name, value in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def find(path: Path) -> Path | None:
    """The checkpoint that is meant by a path: itself, or the newest whole one of a run.

    Args:
        path: of a checkpoint or a run.

    Returns:
        Its place; None where there is none.

    Example:
        >>> find(Path("/nowhere"))
    """
    return next(filter(is_whole, _candidates(path)), None)


def missing(path: Path) -> UsageError:
    """What is wrong where there is no whole checkpoint.

    Args:
        path: of a checkpoint or a run.

    Returns:
        An error to be raised.

    Example:
        >>> missing(Path("/nowhere"))
        UsageError('there is no checkpoint in /nowhere')
    """
    told = f"there is no checkpoint in {path}"
    if any(_candidates(path)):
        told = f"no checkpoint in {path} is whole: its files are not what {_CHECKSUMS} says"
    return UsageError(told)


def _candidates(path: Path) -> Iterator[Path]:
    if (path / _CHECKSUMS).exists():
        yield path
        return
    with contextlib.suppress(OSError):
        yield from _by_age(path)


def read(place: Path) -> tuple[Tensors, Any]:
    """What was written.

    Args:
        place: of a whole checkpoint.

    Returns:
        Tensors by name, and the rest.
    """
    return _read_tensors(place), pickle.loads((place / _REST).read_bytes())
