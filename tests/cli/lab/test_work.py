# SPDX-License-Identifier: BSD-3-Clause
"""The functions that the experiments run."""

from pathlib import Path

import pytest

from teamster.cli.lab.work import dot, download, loop, write_file


def test_a_loop_adds_up_squares() -> None:
    assert loop(10) == sum(number**2 for number in range(10))


def test_a_written_file_is_gone(tmp_path: Path) -> None:
    assert write_file(str(tmp_path)) > 10_000_000
    assert list(tmp_path.iterdir()) == []


def test_a_product_is_one() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    pytest.importorskip("numpy")
    with threadpoolctl.threadpool_limits(None):
        assert dot((16, 1)) == pytest.approx(1 / 16)
        numbers = [
            each["num_threads"]
            for each in threadpoolctl.threadpool_info()
            if each["user_api"] == "blas"
        ]
        assert set(numbers) <= {1}


def test_nobody_answers() -> None:
    with pytest.raises(OSError, match="refused"):
        download("http://127.0.0.1:1/page/1")
