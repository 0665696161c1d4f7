# SPDX-License-Identifier: BSD-3-Clause
"""How much CPU this process may really use.

Four things limit it, and the least of them counts::

    affinity mask ----+
    cpuset of every --+-> CPUs one may run on -+
    cgroup level                               +-> budget, a fraction -> usable cores, rounded down
    PYTHON_CPU_COUNT --------------------------+
    CPU quota of every cgroup level -----------+

Every level counts because a quota binds everything below it: a service without a quota of its own
inside a slice with half a CPU has half a CPU, and the root of the cgroup file system, where other
tools look, says nothing about it.

Nothing here raises over what it reads: a file that is missing, unreadable or malformed sets no
limit. Every function takes ``root``, the folder under which ``proc`` and ``sys`` are found.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_DEFAULT_PERIOD_US = 100_000  # the kernel's own, where the file names none
_CPUSET_FILES = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")


# The budget


def cpu_budget(root: str = "/", *, affinity: Collection[int] | None = None) -> float:
    """Return how many CPUs' worth of time this process may use.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        affinity: The CPU numbers of the affinity mask; default: the calling thread's own mask.

    Returns:
        The budget in CPUs, a fraction above 0: 1.5 means 1.5 seconds of CPU time a second.

    Example:
        >>> 0 < cpu_budget() <= 100_000
        True
    """
    return cpu_limit(root, affinity=affinity)[0]


def usable_cores(root: str = "/", *, affinity: Collection[int] | None = None) -> int:
    """Return the CPU budget as a number of workers: rounded down, at least 1.

    Down, because one worker more than the quota covers gets all of them stopped by the kernel for
    part of each 100 ms.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        affinity: The CPU numbers of the affinity mask; default: the calling thread's own mask.

    Returns:
        The number of cores, 1 or more.

    Example:
        >>> usable_cores() >= 1
        True
    """
    return max(1, int(cpu_budget(root, affinity=affinity)))


def cpu_limit(
    root: str = "/",
    *,
    affinity: Collection[int] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[float, str]:
    """Return the CPU budget and what sets it.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        affinity: The CPU numbers of the affinity mask; default: the calling thread's own mask.
        environ: The environment variables; default: this process's.

    Returns:
        The budget in CPUs and its source, such as
        ``"quota of /system.slice/job.service; affinity allows 8"``.

    Example:
        >>> cpus, source = cpu_limit()
        >>> cpus > 0 and len(source) > 0
        True
    """
    mask = frozenset(affinity) if affinity is not None else affinity_mask()
    candidates = [(float(len(mask)), "affinity mask")]
    allowed, cpuset = _narrowed_by_cpusets(mask, root)
    if cpuset is not None:
        candidates.append((float(len(allowed)), f"cpuset of {cpuset}"))
    candidates.extend(_requested_counts(os.environ if environ is None else environ))
    for name, directory in cgroup_levels("cpu", root):
        quota = _quota(directory)
        if quota is not None:
            candidates.append((quota, f"quota of {name}"))
    cpus, source = min(candidates, key=lambda candidate: candidate[0])
    if source != "affinity mask":
        source += f"; affinity allows {len(mask)}"
    return cpus, source


def affinity_mask() -> frozenset[int]:
    """Return the CPU numbers that the calling thread may run on.

    Returns:
        The numbers; where the platform keeps no mask (macOS), those of all CPUs.

    Example:
        >>> len(affinity_mask()) >= 1
        True
    """
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def allowed_cpus(root: str = "/", *, affinity: Collection[int] | None = None) -> frozenset[int]:
    """Return the CPU numbers within the affinity mask and the cpuset of every cgroup level.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        affinity: The CPU numbers of the affinity mask; default: the calling thread's own mask.

    Returns:
        The CPU numbers, at least one.

    Example:
        >>> allowed_cpus() <= affinity_mask()
        True
    """
    return _narrowed_by_cpusets(
        frozenset(affinity) if affinity is not None else affinity_mask(), root
    )[0]


def _narrowed_by_cpusets(mask: frozenset[int], root: str) -> tuple[frozenset[int], str | None]:
    """Return the CPUs of `mask` that every cpuset allows, and the name of the narrowest cpuset.

    The name is None where no cpuset narrows the mask.
    """
    allowed, narrowest = mask, None
    for name, directory in cgroup_levels("cpuset", root):
        texts = (read_text(f"{directory}/{file}") for file in _CPUSET_FILES)
        cpus = next((found for text in texts if (found := parse_cpu_list(text or ""))), allowed)
        # A set with no CPU in common cannot be the truth about a process that is running: the file
        # is stale.
        if allowed & cpus and not allowed <= cpus:
            allowed, narrowest = allowed & cpus, name
    return allowed, narrowest


def _requested_counts(environ: Mapping[str, str]) -> Iterator[tuple[float, str]]:
    """Yield what the user asked Python to believe.

    The interpreter itself obeys it from 3.13 on, we always do.
    """
    option = getattr(sys, "_xoptions", {}).get("cpu_count")
    source = "PYTHON_CPU_COUNT" if option is None else "-X cpu_count"
    text = environ.get("PYTHON_CPU_COUNT", "") if option is None else option
    if isinstance(text, str) and text.strip().isdecimal() and int(text) > 0:
        yield float(text), source


def _quota(directory: str) -> float | None:
    """Return the CPU quota of one cgroup in CPUs, or None where it sets none."""
    text = read_text(f"{directory}/cpu.max")
    if text is None:  # version 1, or a level without the controller
        quota = read_text(f"{directory}/cpu.cfs_quota_us") or ""
        period = read_text(f"{directory}/cpu.cfs_period_us") or ""
    else:
        quota, _, period = text.strip().partition(" ")
    limit, whole = _number(quota), _number(period) if period.strip() else _DEFAULT_PERIOD_US
    if limit is None or not whole:
        return None  # "max", nothing at all, or nonsense
    share = limit / whole
    return share if share > 0 else None  # version 1 says -1 for none


# The cores behind the CPUs


def physical_cores(root: str = "/", *, affinity: Collection[int] | None = None) -> int:
    """Return the number of physical cores among the CPUs that this process may run on.

    Two hyper-threads of one core count once. A CPU counts as a core where its topology cannot be
    read.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        affinity: The CPU numbers of the affinity mask; default: the calling thread's own mask.

    Returns:
        The number of cores, 1 or more; the CPU quota does not change it.

    Example:
        >>> 1 <= physical_cores() <= len(affinity_mask())
        True
    """
    folder = f"{root.rstrip('/')}/sys/devices/system/cpu"
    unseen = set(allowed_cpus(root, affinity=affinity))
    cores = 0
    while unseen:
        cpu = unseen.pop()
        unseen -= _siblings(f"{folder}/cpu{cpu}/topology")
        cores += 1
    return max(1, cores)


def _siblings(folder: str) -> frozenset[int]:
    """Return the hyper-threads that share a core.

    The file has the name of today's kernels, or the one before Linux 5.3.
    """
    text = read_text(f"{folder}/core_cpus_list")
    return parse_cpu_list(
        text if text is not None else read_text(f"{folder}/thread_siblings_list") or ""
    )


# Reading what the kernel tells


def read_text(path: str) -> str | None:
    """Return a small file's text, or None where it cannot be read.

    Args:
        path: The file.

    Returns:
        The text as it is, newline included.

    Example:
        >>> read_text("/no/such/file") is None
        True
    """
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return None


def parse_cpu_list(text: str) -> frozenset[int]:
    """Return the numbers of a kernel CPU list.

    Args:
        text: The list, such as ``"0-3,8"``.

    Returns:
        The CPU numbers; none for an empty or malformed list.

    Example:
        >>> sorted(parse_cpu_list("0-3,8"))
        [0, 1, 2, 3, 8]
    """
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        low, high = _number(first), _number(last or first)
        if low is None or high is None:
            return frozenset()
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def _number(text: str) -> int | None:
    """Return a whole number, or None for any other text.

    It asks before it converts: where ``int`` refuses a text, it formats the text with ``repr``,
    which looks for signals, and CPython drops the ``KeyboardInterrupt`` that is raised there in
    favour of its own ``ValueError``.
    """
    stripped = text.strip()
    return int(stripped) if stripped.removeprefix("-").isdecimal() else None


def cgroup_levels(controller: str, root: str = "/") -> list[tuple[str, str]]:
    """Return the cgroups of this process for one controller, its own first, then each parent.

    On a machine with both versions mounted, the levels of version 1 come before those of version 2;
    a file of the controller exists in only one of the two. Inside a container the parents outside
    it cannot be seen.

    Args:
        controller: ``"cpu"``, ``"cpuset"`` or ``"memory"``.
        root: The folder that holds ``proc`` and ``sys``.

    Returns:
        Pairs of the cgroup's name, such as ``"/system.slice/job.service"``, and the folder with its
        files.

    Example:
        >>> all(name.startswith("/") for name, folder in cgroup_levels("cpu"))
        True
    """
    prefix = root.rstrip("/")
    own_paths = _own_cgroup_paths(read_text(f"{prefix}/proc/self/cgroup"), controller)
    views: dict[int, list[tuple[str, str]]] = {1: [], 2: []}
    for version, mount_root, mount_point in _cgroup_mounts(prefix, controller):
        if version in own_paths:
            levels = _levels_below(mount_root, f"{prefix}{mount_point}", own_paths[version])
            # The same hierarchy may be mounted twice; one that shows more parents has more limits
            views[version] = max(views[version], levels, key=len)
    return views[1] + views[2]


def _own_cgroup_paths(text: str | None, controller: str) -> dict[int, str]:
    """Return the process's path by cgroup version, from ``/proc/self/cgroup``."""
    if text is None:
        return {1: "/", 2: "/"}  # the limits at the mount point are then all that can be known
    paths: dict[int, str] = {}
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            paths[2] = path
        elif controller in controllers.split(","):
            paths[1] = path
    return paths


def _cgroup_mounts(prefix: str, controller: str) -> Iterator[tuple[int, str, str]]:
    """Yield (version, cgroup that the mount shows as its top, mount point) for one controller."""
    text = read_text(f"{prefix}/proc/self/mountinfo")
    if text is not None:
        rows = [_mountinfo_row(line) for line in text.splitlines() if " - cgroup" in line]
    else:
        text = read_text(f"{prefix}/proc/mounts") or ""
        fields = [line.split() for line in text.splitlines() if " cgroup" in line]
        rows = [["/", *row[1:4]] for row in fields if len(row) >= 4]
    for row in rows:
        if len(row) != 4:
            continue
        mount_root, mount_point, kind, options = row
        if kind == "cgroup2":
            yield 2, _unescaped(mount_root), _unescaped(mount_point)
        elif kind == "cgroup" and controller in options.split(","):
            yield 1, _unescaped(mount_root), _unescaped(mount_point)


def _mountinfo_row(line: str) -> list[str]:
    """Return mount root, mount point, type and options; fewer where the line is malformed."""
    before, _, after = line.partition(" - ")
    kind, _, rest = after.partition(" ")
    return [*before.split()[3:5], kind, *rest.split()[-1:]]


def _unescaped(path: str) -> str:
    """Return a path of a mount table with its octal escapes decoded."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _levels_below(mount_root: str, base: str, own: str) -> list[tuple[str, str]]:
    """Return (name, folder) from the process's own cgroup up to the top of one mount."""
    top, below = _split_own_path(mount_root, base, own)
    parts = [part for part in below.split("/") if part]
    levels = []
    for depth in range(len(parts), -1, -1):
        tail = "".join(f"/{part}" for part in parts[:depth])
        levels.append((top.rstrip("/") + tail or "/", base.rstrip("/") + tail))
    return levels


def _split_own_path(mount_root: str, base: str, own: str) -> tuple[str, str]:
    """Split the process's path into the part above the mount and the part that the mount shows.

    Usually the mount's root is a prefix of the path. In a container that sees the host's names but
    only its own part of the tree it is not: then the longest tail of the path that exists is the
    process's place, and failing that the mount point itself, which is the container's own cgroup.
    """
    top = mount_root.rstrip("/")
    if ".." not in own.split("/"):  # with "..", the process is outside what this namespace can name
        if own == top or own.startswith(f"{top}/"):
            below = own[len(top) :]
            if os.path.isdir(base + below):
                return top or "/", below
        parts = own.strip("/").split("/")
        for start in range(len(parts)):
            below = "/" + "/".join(parts[start:])
            if os.path.isdir(base + below):
                return own[: len(own) - len(below)] or "/", below
    return ("/" if ".." in top.split("/") else top or "/"), ""
