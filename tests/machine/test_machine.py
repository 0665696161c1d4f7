# SPDX-License-Identifier: BSD-3-Clause
"""The whole machine: one container's tree, this computer, the text, the JSON, the cost."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

import teamster.machine
from teamster.machine import Gpu, Machine, NumaNode

GIB = 2**30


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """What a job with 1.5 CPUs and 2 GiB sees on a computer of 8 hyper-threads and 2 nodes."""
    files = {
        "proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n",
        "proc/self/cgroup": "0::/system.slice/job.service\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/system.slice/job.service/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/system.slice/job.service/memory.max": "max\n",
        "sys/fs/cgroup/system.slice/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/system.slice/memory.current": f"{GIB}\n",
        "sys/devices/system/node/online": "0-1\n",
    }
    for node, cpus in enumerate(("0-1,4-5", "2-3,6-7")):
        files[f"sys/devices/system/node/node{node}/cpulist"] = cpus
        files[f"sys/devices/system/node/node{node}/meminfo"] = f"Node {node} MemTotal: 8388608 kB\n"
    for cpu in range(8):
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = (
            f"{cpu % 4},{cpu % 4 + 4}\n"
        )
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def machine(container: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return Machine.detect(container, affinity=range(8))


def test_facts_of_a_container(machine: Machine) -> None:
    assert machine.cpu_budget == 1.5
    assert machine.cpu_limit_source == "quota of /system.slice/job.service; affinity allows 8"
    assert machine.usable_cores == 1
    assert machine.physical_cores == 4
    assert machine.numa_nodes == (
        NumaNode(0, (0, 1, 4, 5), 8 * GIB),
        NumaNode(1, (2, 3, 6, 7), 8 * GIB),
    )
    assert machine.memory_bytes == 2 * GIB
    assert machine.memory_limit_source == "limit of /system.slice; the machine has 16.0 GiB"
    assert machine.available_memory_bytes == GIB
    assert machine.shm_bytes == 0
    assert machine.gpus == ()


def test_facts_within_a_narrow_mask(container: Path) -> None:
    narrow = Machine.detect(str(container), affinity=[2])
    assert (narrow.cpu_budget, narrow.cpu_limit_source) == (1.0, "affinity mask")
    assert narrow.physical_cores == 1
    assert [node.cpus for node in narrow.numa_nodes] == [(), (2,)]


def test_this_computer() -> None:
    machine = Machine.detect()
    assert 1 <= machine.usable_cores <= (os.cpu_count() or 1)
    assert machine.physical_cores >= 1
    assert 0 <= machine.available_memory_bytes <= machine.memory_bytes
    assert (
        machine.python_version == ".".join(map(str, sys.version_info[:3]))
        or sys.version_info.releaselevel != "final"
    )
    assert machine.implementation == sys.implementation.name
    assert set(machine.start_methods) == set(multiprocessing.get_all_start_methods())
    assert machine.memfd or not hasattr(os, "memfd_create")
    assert machine.free_threaded == (not getattr(sys, "_is_gil_enabled", lambda: True)())


@pytest.mark.parametrize("enabled", [True, False])
def test_free_threaded(container: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: enabled, raising=False)
    machine = Machine.detect(container)
    assert machine.free_threaded is not enabled
    assert ("free-threaded" in str(machine)) is not enabled


def test_memfd_that_a_sandbox_forbids(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(1, f"Operation not permitted: {arguments}")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    assert not Machine.detect(container).memfd


def test_frozen_keyword_only_and_slotted(machine: Machine) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        machine.usable_cores = 99  # type: ignore[misc]
    with pytest.raises(TypeError):
        Machine(1.0)  # type: ignore[call-arg]
    assert not hasattr(machine, "__dict__")


def test_equal_hashable_and_picklable(machine: Machine) -> None:
    assert pickle.loads(pickle.dumps(machine)) == machine
    assert hash(pickle.loads(pickle.dumps(machine))) == hash(machine)


def test_to_dict_is_what_json_gives_back(machine: Machine) -> None:
    plain = dataclasses.replace(machine, gpus=(Gpu(0, "NVIDIA H200", 5),)).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain) == [field.name for field in dataclasses.fields(Machine)]
    assert plain["gpus"] == [{"index": 0, "name": "NVIDIA H200", "memory_bytes": 5}]


def test_text(machine: Machine) -> None:
    shown = dataclasses.replace(
        machine, python_version="3.13.1", implementation="cpython", memfd=True
    )
    shown = dataclasses.replace(
        shown, start_methods=("forkserver", "spawn", "fork"), free_threaded=False
    )
    assert str(shown).splitlines() == [
        "CPU budget      1.5 CPUs  (quota of /system.slice/job.service; affinity allows 8)",
        "usable cores    1",
        "physical cores  4",
        "NUMA nodes      2  (0: CPUs 0-1,4-5, 8.0 GiB; 1: CPUs 2-3,6-7, 8.0 GiB)",
        "memory          2.0 GiB  (limit of /system.slice; the machine has 16.0 GiB)",
        "available       1.0 GiB",
        "/dev/shm        none",
        "GPUs            none",
        "Python          3.13.1 cpython, with the GIL",
        "start methods   forkserver, spawn, fork",
        "memfd           yes",
    ]


def test_text_of_a_large_machine_stays_short(machine: Machine) -> None:
    large = dataclasses.replace(
        machine,
        cpu_budget=192.0,
        numa_nodes=tuple(NumaNode(index, tuple(range(24)), GIB) for index in range(8)),
        gpus=(
            *(Gpu(index, "NVIDIA H200", 140 * GIB) for index in range(8)),
            Gpu(8, "CUDA device 8", 0),
        ),
    )
    lines = str(large).splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("CPU budget      192 CPUs")
    assert lines[3] == "NUMA nodes      8  (192 CPUs together)"
    assert (
        lines[7]
        == "GPUs            8 x NVIDIA H200, 140.0 GiB; 1 x CUDA device 8, memory not known"
    )


def test_text_of_a_machine_that_tells_little(machine: Machine) -> None:
    bare = dataclasses.replace(
        machine, cpu_budget=1.0, numa_nodes=(), memfd=False, shm_bytes=64 * 2**20
    )
    text = str(bare)
    assert "1 CPU  (" in text
    assert "NUMA nodes      not reported" in text
    assert "/dev/shm        64.0 MiB" in text
    assert "memfd           no  (arrays travel by pickle)" in text


def test_a_node_without_cpus(machine: Machine) -> None:
    assert "(3: no CPU, 1.0 GiB)" in str(
        dataclasses.replace(machine, numa_nodes=(NumaNode(3, (), GIB),))
    )


def test_detection_is_cheap(container: Path) -> None:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        Machine.detect(container, affinity=range(8))
        times.append(time.perf_counter() - started)
    assert min(times) < 0.005


def test_the_room_imports_lazily_and_nothing_heavy() -> None:
    code = """
import sys
before = set(sys.modules)
import teamster.machine
loaded = {name for name in set(sys.modules) - before if name.startswith("teamster.machine.")}
teamster.machine.usable_cores()
heavy = {
    "dataclasses", "typing", "psutil", "subprocess", "threadpoolctl", "torch", "numpy",
    "multiprocessing",
}
print(loaded, heavy & (set(sys.modules) - before))
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert (
        subprocess.check_output([sys.executable, "-c", code], env=environ, text=True)
        == "set() set()\n"
    )


def test_public_names() -> None:
    assert set(teamster.machine.__all__) == set(teamster.machine._HOME)
    for name in teamster.machine.__all__:
        assert getattr(teamster.machine, name).__name__ == name
        assert name in dir(teamster.machine)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = teamster.machine.nothing
