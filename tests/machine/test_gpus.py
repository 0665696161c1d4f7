# SPDX-License-Identifier: BSD-3-Clause
"""GPUs, from a stand-in for nvidia-smi and stand-ins for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from teamster.machine import gpus
from teamster.machine.gpus import Gpu, find_gpus

if TYPE_CHECKING:
    from tests.conftest import Within

ENVIRON = {"PATH": "relative/bin:/usr/bin:/bin"}
TWO = "GPU-aaa1, NVIDIA H200, 143771\nGPU-bbb2, NVIDIA L4, 23034\n"
H200 = ("NVIDIA H200", 143771 * 2**20)
L4 = ("NVIDIA L4", 23034 * 2**20)


def install_smi(root: Path, body: str) -> str:
    """Write a program named nvidia-smi below `root`."""
    program = root / "usr/bin/nvidia-smi"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(root)


def printing_smi(root: Path, text: str) -> str:
    (root / "answer").write_text(text)
    return install_smi(
        root,
        f'echo "$@" > "{root}/asked"\nwhile read -r line; do echo "$line"; done < "{root}/answer"',
    )


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def fake_torch(monkeypatch: pytest.MonkeyPatch, *, started: bool, sizes: list[int]) -> None:
    """Put a torch in place that, like the real one, starts CUDA when asked for properties."""

    def properties(index: int) -> SimpleNamespace:
        assert started, "asking for properties would start CUDA"
        return SimpleNamespace(name=f"card {index}", total_memory=sizes[index])

    cuda = SimpleNamespace(
        is_initialized=lambda: started,
        device_count=lambda: len(sizes),
        get_device_properties=properties,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


def test_neither_torch_nor_program(tmp_path: Path) -> None:
    assert find_gpus(str(tmp_path), environ=ENVIRON) == ()


def test_nvidia_smi(tmp_path: Path) -> None:
    root = printing_smi(tmp_path, TWO)
    assert find_gpus(root, environ=ENVIRON) == (Gpu(0, *H200), Gpu(1, *L4))
    assert (tmp_path / "asked").read_text().split() == list(gpus._QUERY)


def test_memory_that_is_not_told(tmp_path: Path) -> None:
    root = printing_smi(tmp_path, "GPU-c, NVIDIA GB10, [N/A]\n")
    assert find_gpus(root, environ=ENVIRON) == (Gpu(0, "NVIDIA GB10", 0),)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1", [H200, L4]),
        ("1,0", [L4, H200]),
        ("1", [L4]),
        ("GPU-b", [L4]),
        ("", []),
        ("-1", []),
        ("0,9,1", [H200]),
        ("NoDevFiles", []),
        ("MIG-5c1f", [H200, L4]),
    ],
)
def test_cuda_visible_devices(
    tmp_path: Path, visible: str, expected: list[tuple[str, int]]
) -> None:
    found = find_gpus(
        printing_smi(tmp_path, TWO), environ={**ENVIRON, "CUDA_VISIBLE_DEVICES": visible}
    )
    assert found == tuple(Gpu(index, *card) for index, card in enumerate(expected))


@pytest.mark.parametrize(
    "body",
    [
        "exit 9",
        "echo 'GPU-a, NVIDIA H200, 1'; exit 15",
        "echo No devices were found",
        "echo 'GPU-a, x'",
    ],
)
def test_a_program_that_fails_or_finds_none(tmp_path: Path, body: str) -> None:
    assert find_gpus(install_smi(tmp_path, body), environ=ENVIRON) == ()


def test_a_program_that_cannot_start(tmp_path: Path) -> None:
    root = install_smi(tmp_path, "")
    (tmp_path / "usr/bin/nvidia-smi").write_bytes(b"\x7fELF nonsense")
    assert find_gpus(root, environ=ENVIRON) == ()


def test_a_program_that_hangs_costs_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: Within
) -> None:
    monkeypatch.setattr(gpus, "SMI_TIMEOUT", 0.2)
    root = install_smi(tmp_path, "exec sleep 60")
    with within(5):
        assert find_gpus(root, environ=ENVIRON) == ()


def test_started_torch_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, started=True, sizes=[10, 20])
    root = printing_smi(tmp_path, TWO)
    assert find_gpus(root, environ=ENVIRON) == (Gpu(0, "card 0", 10), Gpu(1, "card 1", 20))
    assert not (tmp_path / "asked").exists()


def test_torch_that_has_not_started_cuda_is_left_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch(monkeypatch, started=False, sizes=[10])
    assert find_gpus(printing_smi(tmp_path, TWO), environ=ENVIRON) == (Gpu(0, *H200), Gpu(1, *L4))


def test_torch_alone_counts_without_starting_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch(monkeypatch, started=False, sizes=[10, 20])
    found = find_gpus(str(tmp_path), environ=ENVIRON)
    assert found == (Gpu(0, "CUDA device 0", 0), Gpu(1, "CUDA device 1", 0))


def test_torch_in_the_middle_of_its_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace()))
    assert find_gpus(str(tmp_path), environ=ENVIRON) == ()


def test_torch_is_never_imported() -> None:
    code = (
        "import sys; from teamster.machine.gpus import find_gpus; find_gpus(); print('torch' in "
        "sys.modules)"
    )
    environ = {"PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))}
    assert (
        subprocess.check_output([sys.executable, "-c", code], env=environ, text=True) == "False\n"
    )
