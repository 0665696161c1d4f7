# SPDX-License-Identifier: BSD-3-Clause
"""Arrays that are mapped files, in worker processes."""

from __future__ import annotations

import functools
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import teamster as ts
from teamster.spine.transport.pickled import pack, pack_by_value, pack_function, unpack

ROWS = 3_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    there = tmp_path / "train.bin"
    np.arange(ROWS * 100, dtype=np.int32).tofile(there)
    return there


def mapped(path: Path, mode: Any = "r", **more: Any) -> Any:
    return np.memmap(path, np.int32, mode, **more)


def there_and_back(array: Any) -> Any:
    parcel = pack(array)
    return unpack(parcel.data, parcel.buffers)


def write(index: int, array: Any, power: float = 2.0) -> int:
    array[index] = index**power
    return index


def describe(_: int, array: Any) -> tuple[str, int, bool]:
    return type(array).__name__, int(array[-1]), array.flags.writeable


def anonymous_kib(_: int, array: Any) -> tuple[int, int]:
    text = Path("/proc/self/smaps_rollup").read_text()
    lines = (line.split() for line in text.splitlines())
    sizes = {line[0]: int(line[1]) for line in lines if line[0].startswith("Pss_")}
    return int(array.sum(dtype=np.int64)), sizes.get("Pss_Anon:", 0) + sizes.get("Pss_Shmem:", 0)


@pytest.mark.parametrize("pack_it", [pack, pack_by_value, pack_function])
def test_it_travels_as_its_file(path: Path, pack_it: Any) -> None:
    array = mapped(path)
    parcel = pack_it(array)
    assert len(parcel.data) < 1_000
    assert parcel.buffers == []
    there = unpack(parcel.data, parcel.buffers)
    assert type(there) is np.memmap
    assert (there.filename, there.mode, there.flags.writeable) == (str(path), "r", False)
    assert np.array_equal(there, array)


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[1_000:],
        lambda array: array[5:90_000:7],
        lambda array: array[::-3],
        lambda array: array[:ROWS].reshape(60, -1).T[3:7],
        lambda array: array[7],
        lambda array: array[4:5].reshape(()),
        lambda array: array[10:20].view(np.int16),
        lambda array: array[:0],
        lambda array: np.lib.stride_tricks.as_strided(array, (9, 4), (0, 4), subok=True),
    ],
)
def test_views_of_it(path: Path, view: Any) -> None:
    columns = mapped(path, shape=(500, 600), order="F").ravel("F")
    for array in (mapped(path), mapped(path, offset=8_000), columns):
        here = view(array)
        there = there_and_back(here)
        assert type(there) is type(here)
        assert np.array_equal(there, here)
        assert np.shape(there) == np.shape(here)


def test_structured_rows(tmp_path: Path) -> None:
    kind = np.dtype([("at", "<f8"), ("name", "S3")])
    rows = np.memmap(tmp_path / "rows", kind, "w+", shape=(40,))
    rows["at"] = range(40)
    rows["name"] = b"abc"
    rows.flush()
    assert np.array_equal(there_and_back(rows[3:])["at"], range(3, 40))
    assert there_and_back(rows)["name"][5] == b"abc"


def test_what_a_worker_writes_is_in_the_file(tmp_path: Path) -> None:
    """The usual way to have results of large arrays: an output that workers fill."""
    output = np.memmap(tmp_path / "output", np.float64, "w+", shape=(1_000,))
    ts.map(functools.partial(write, array=output), range(1_000), backend="process", workers=2)
    assert np.array_equal(output, np.arange(1_000) ** 2.0)
    with ts.Pool("process", workers=2) as pool:
        pool.starmap(write, [(index, output, 3.0) for index in range(1_000)])
    assert np.array_equal(output, np.arange(1_000) ** 3.0)


def test_changes_of_its_own_are_not_in_the_file(path: Path) -> None:
    array = mapped(path, "c")
    array[-1] = 5
    with ts.Pool("process", workers=1) as pool:
        assert pool.starmap(describe, [(0, array)]) == [("memmap", 5, True)]
        pool.starmap(write, [(0, array, 9.0)])
    assert array[0] == 0


def test_a_file_that_has_no_name_any_more_is_copied(path: Path) -> None:
    array = mapped(path)
    with tempfile.TemporaryFile() as file:
        file.write(b"\x01\x00\x00\x00" * 100_000)
        file.flush()
        nameless = np.memmap(file, np.int32, "r")
        path.rename(path.with_suffix(".old"))
        np.zeros(ROWS * 100, np.int32).tofile(path)
        for each in (array, nameless):
            assert np.array_equal(there_and_back(each), each)
            assert len(pack(each).buffers) == 1
    assert describe(0, there_and_back(array))[:2] == ("memmap", ROWS * 100 - 1)


def test_a_file_that_goes_on_the_way_is_an_error_that_says_so(path: Path) -> None:
    parcel = pack(mapped(path))
    os.truncate(path, 100)
    with pytest.raises(FileNotFoundError, match="shortened while the array was on its way"):
        unpack(parcel.data, parcel.buffers)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        unpack(parcel.data, parcel.buffers)


def test_many_views_take_one_mapping_and_no_descriptor(path: Path) -> None:
    array = mapped(path)
    before = len(os.listdir("/proc/self/fd"))
    with ts.Pool("process", workers=1) as pool:
        views = pool.map(functools.partial(_rows, array), range(1_000))
        assert [int(each[0]) for each in views] == [100 * row for row in range(1_000)]
    names = Path("/proc/self/maps").read_text().count(str(path))
    assert names <= 2  # the program's own, and that of the views
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def _rows(array: Any, row: int) -> Any:
    return array[100 * row : 100 * row + 100]


def test_workers_do_not_copy_it(tmp_path: Path) -> None:
    large = np.memmap(tmp_path / "large", np.uint8, "w+", shape=(64 << 20,))
    large[::4_096] = 1
    with ts.Pool("process", workers=2, initializer=len, initargs=(large,)) as pool:
        small = max(kib for _, kib in pool.starmap(anonymous_kib, [(0, large[:1])] * 2))
        found = pool.starmap(anonymous_kib, [(index, large) for index in range(4)])
    assert {total for total, _ in found} == {(64 << 20) // 4_096}
    assert max(kib for _, kib in found) - small < 16 << 10


def test_other_pickling_is_as_it_was(path: Path) -> None:
    there_and_back(mapped(path))
    assert len(pickle.dumps(mapped(path))) > ROWS * 400
