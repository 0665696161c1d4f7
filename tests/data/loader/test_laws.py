# SPDX-License-Identifier: BSD-3-Clause
"""The laws of the pool, as the programs see them that only know the loader."""

from __future__ import annotations

import shutil
import signal
import sys

import pytest

from tests.conftest import RunScript, StartScript, WaitUntil

# --- a small /dev/shm -----------------------------------------------------------------------------

IN_A_SMALL_SHM = """
import os, sys

if "there" not in sys.argv:
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    there = [sys.executable, __file__, "there"]
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", mount, "sh", *there])

import torch
from torch.utils import data
from teamster.data import DataLoader


def sample(index):  # of half a MiB; a worker that dies has another's pid after it
    return torch.full((131_072,), float(index)), os.getpid()


class Samples(data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return sample(index)


class Stream(data.IterableDataset):
    def __iter__(self):
        yield from map(sample, range(64))


assert os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks == 64 << 10
for dataset, count in ((Samples(), 2), (Stream(), 1)):
    # All are kept, so that they are in slots at first, and travel in other ways after that
    batches = list(DataLoader(dataset, 8, num_workers=count))
    sums = [images.sum(dtype=torch.float64).item() for images, _ in batches]
    assert sums == [131_072.0 * sum(range(at, at + 8)) for at in range(0, 64, 8)], sums
    workers = {pid for _, pids in batches for pid in pids.tolist()}
    assert os.getpid() not in workers
    assert len(workers) <= count, workers
    del batches
    print(type(dataset).__name__, os.listdir("/dev/shm"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_tiny_dev_shm_changes_nothing(run_script: RunScript) -> None:
    """Trap 28: torch's own loader finds no room there; and a bus error would end a worker."""
    script = run_script(IN_A_SMALL_SHM, timeout=60)
    if "unshare failed" in script.stderr or "permission denied" in script.stderr:
        pytest.skip("no mount namespace can be made here")
    assert (script.stdout, script.stderr, script.returncode) == ("Samples []\nStream []\n", "", 0)


# --- forks of a program that has threads ----------------------------------------------------------

AFTER_NATIVE_THREADS = """
import os, threading, warnings
import torch
from torch.utils import data
from teamster.data import DataLoader

warnings.simplefilter("ignore")  # that torch's own workers read what does not pickle
torch.set_num_threads(2)
SIZE = 384
before = len(os.listdir("/proc/self/task"))
matrix = torch.eye(SIZE)
assert (matrix @ matrix).exp().log().sum() == SIZE
assert len(os.listdir("/proc/self/task")) > before, "no thread of OpenMP runs"


def sample(index):
    return (float(index) * torch.eye(SIZE) @ torch.ones(SIZE, SIZE)).exp().log().mean()


class Samples(data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return sample(index)


class Stream(data.IterableDataset):
    def __iter__(self):
        info = data.get_worker_info()
        yield from map(sample, range(info.id, 24, info.num_workers))


class Locked(Samples):
    def __init__(self):
        self.lock = threading.Lock()

    def __getitem__(self, index):
        with self.lock:
            return sample(index)


for name, dataset, how in (
    ("process", Samples(), {"num_workers": 2}),
    ("iterable", Stream(), {"num_workers": 2}),
    ("with a lock", Locked(), {"num_workers": 2}),
    ("with a lock, auto", Locked(), {}),
):
    found = torch.cat(list(DataLoader(dataset, 4, **how))).sort().values
    assert torch.allclose(found, torch.arange(24.0), atol=0.01), (name, found)
    assert (matrix @ matrix).exp().log().sum() == SIZE  # between two, in the program
    print(name, flush=True)
"""


def test_no_worker_hangs_after_native_threads_have_run(run_script: RunScript) -> None:
    """Trap 4: a fork has the pool of OpenMP without its threads, and waits for them for ever."""
    script = run_script(AFTER_NATIVE_THREADS, timeout=60)
    names = ["process", "iterable", "with a lock", "with a lock, auto"]
    assert (script.stdout.splitlines(), script.stderr) == (names, "")
    assert script.returncode == 0


# --- nothing is left ------------------------------------------------------------------------------

IN_THE_MIDDLE = """
import sys, time
import torch
from torch.utils import data
from teamster.data import DataLoader


def sample(index):
    time.sleep(0.002)
    return torch.full((16_384,), float(index))  # so large that batches are in shared memory


class Samples(data.Dataset):
    def __len__(self):
        return 100_000

    def __getitem__(self, index):
        return sample(index)


class Stream(data.IterableDataset):
    def __iter__(self):
        yield from map(sample, range(100_000))


kind = sys.argv[1]
how = {"share": "law3"} if kind == "shared" else {}
loader = DataLoader(Stream() if kind == "iterable" else Samples(), 8, num_workers=2, **how)
for number, batch in enumerate(loader):
    if number == 9:
        print("ready", flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("process", "SIGTERM"),
        ("iterable", "SIGINT"),
        ("shared", "SIGKILL"),
    ],
)
def test_a_program_that_is_ended_in_the_middle_of_an_epoch(
    kind: str, end: str, start_script: StartScript, wait_until: WaitUntil
) -> None:
    """Traps 25 and 27; after each test it is seen whether a file in /dev/shm is left, too."""
    script = start_script(IN_THE_MIDDLE, kind)
    wait_until(lambda: "ready" in script.stdout or script.returncode is not None, seconds=60)
    assert script.returncode is None, script.stderr
    assert len(script.survivors()) >= 2  # workers, and what they were forked from
    script.send_signal(getattr(signal, end))
    script.wait(timeout=3)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")
    if end == "SIGINT":
        assert script.stderr.count("KeyboardInterrupt") == 1
    else:
        assert (script.returncode, script.stderr) == (-getattr(signal, end), "")


# --- numbers that grow ----------------------------------------------------------------------------

MANY_BATCHES = """
import os, resource
import torch
from teamster.data import DataLoader

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))  # of its workers, too
BATCHES = 3_000  # one descriptor of 12 batches would be too many


def descriptors():
    return len(os.listdir("/proc/self/fd"))


class Samples:
    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, index):
        return torch.tensor(index), descriptors() if index % 500 == 0 else 0


mine, theirs, seen = [], [], 0
for number, (numbers, open_there) in enumerate(DataLoader(Samples(), 2, num_workers=2)):
    seen += numbers.sum().item()
    if number % 1_000 == 0:
        mine.append(descriptors())
    if open_there.any():
        theirs.append(open_there.max().item())
mine.append(descriptors())
assert seen == sum(range(2 * BATCHES))
assert max(mine[1:]) <= mine[1], mine  # the workers of the last batches are there, or are not
assert max(theirs[4:]) <= max(theirs[:4]), theirs
"""


def test_descriptors_do_not_grow_over_thousands_of_batches(run_script: RunScript) -> None:
    """Trap 28: torch's loader holds one or two for each tensor that is on its way."""
    script = run_script(MANY_BATCHES, timeout=120)
    assert (script.returncode, script.stderr) == (0, "")


STRINGS = """
import sys
from teamster.data import DataLoader, pack

COUNT, MIB = 300_000, 1 << 20


class Paths:
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return len(self.paths[index])


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


kind, paths = sys.argv[1], [f"images/of/a/folder/{number:08}.jpg" for number in range(COUNT)]
dataset = Paths(paths if kind == "thread" else pack(paths))
each_page = range(0, COUNT, 8)  # of the memory that the strings are in
loader = DataLoader(
    dataset, 500, sampler=each_page, num_workers=2, workers=kind, persistent_workers=True
)
sizes = []
for epoch in range(10):
    assert sum(batch.sum().item() for batch in loader) == 31 * len(each_page)
    theirs = loader.report().memory_bytes
    sizes.append(resident() if kind == "thread" else theirs)
    assert (theirs == 0) is (kind == "thread"), theirs
assert sizes[9] - sizes[1] < 10 * MIB, [size / MIB for size in sizes]
"""


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_strings_that_are_looked_at_again_and_again_take_no_more_memory(
    run_script: RunScript, kind: str
) -> None:
    """Of a list of objects each process comes to have a copy: threads share it, as it is packed."""
    script = run_script(STRINGS, kind, timeout=120)
    assert (script.returncode, script.stderr) == (0, "")
