# SPDX-License-Identifier: BSD-3-Clause
"""Trees of files that machines and containers show: processors and cgroups of both versions."""

from __future__ import annotations

from pathlib import Path

EIGHT = range(8)
V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "33 25 0:29 {root} /sys/fs/cgroup/{name} rw,nosuid shared:9 - cgroup cgroup rw,{name}\n"
DISK_MOUNT = "23 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n"


def write(root: Path, files: dict[str, str]) -> str:
    """Write files below `root`, by absolute path, and return the root as text."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def v2(root: Path, own: str, files: dict[str, str], mount_root: str = "/") -> str:
    """Write a tree with only cgroup version 2; `files` are relative to its mount point."""
    return write(
        root,
        {
            "/proc/self/cgroup": f"0::{own}\n",
            "/proc/self/mountinfo": DISK_MOUNT + V2_MOUNT.format(root=mount_root),
            **{f"/sys/fs/cgroup/{name}": text for name, text in files.items()},
        },
    )


def v1(
    root: Path, own: str, files: dict[str, str], mount_root: str = "/", name: str = "cpu,cpuacct"
) -> str:
    """Write a tree with one controller of cgroup version 1.

    `files` are relative to its mount point.
    """
    return write(
        root,
        {
            "/proc/self/cgroup": f"11:pids:/elsewhere\n4:{name}:{own}\n"
            "1:name=systemd:/init.scope\n",
            "/proc/self/mountinfo": DISK_MOUNT + V1_MOUNT.format(root=mount_root, name=name),
            **{f"/sys/fs/cgroup/{name}/{file}": text for file, text in files.items()},
        },
    )
