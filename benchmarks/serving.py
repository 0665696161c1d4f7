# SPDX-License-Identifier: BSD-3-Clause
"""A model behind HTTP, beside mosec, LitServe and FastAPI with a pool of threads.

Question: how many requests a second are answered, how long does one take, and how much of the
          processors and of memory does that need? Each with two replicas of one inner thread.
Method:   each server is a program of its own; `wrk` with one thread asks it for some seconds with
          1, 8 and 64 connections. All servers in turn, medians of rounds. The peers have the
          settings that their guides name (batch x milliseconds of waiting); ours has none.
Command:  make bench-serving      (make bench-serving ARGS="--models echo --rounds 5"; needs wrk)
Result:   see docs/serving.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.serving_servers import MODELS, SIZES

SERVERS = (
    "teamster",
    "mosec-1x0",
    "mosec-16x1",
    "mosec-16x5",
    "litserve-1x0",
    "litserve-16x5",
    "fastapi",
)
CONNECTIONS = 1, 8, 64
WARM_UP_S, SECONDS = 1, 3  # of load


class Run(NamedTuple):
    """What one load has shown.

    Attributes:
        rate: requests a second.
        p50_ms, p99_ms: from the request to the answer.
        cpu_ms: of the server's processes, a request.
        failed: answers that were no 200.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    failed: int


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@contextlib.contextmanager
def served(server: str, model: str) -> Iterator[tuple[psutil.Process, str]]:
    """A server that answers, and where."""
    port = free_port()
    path = "/inference" if server.startswith("mosec") else "/predict"
    url = f"http://127.0.0.1:{port}{path}"
    kind, _, setting = server.partition("-")
    program_of, more = [f"serving_{kind}"], setting.split("x")
    if not setting:
        program_of, more = ["serving_servers", server], []
    module, *first = program_of
    command = [sys.executable, "-m", f"benchmarks.{module}", *first, model, str(port), *more]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as program:
        found = psutil.Process(program.pid)
        try:
            wait_for(url, model, program)
            yield found, url
        finally:
            tree = tree_of(found)
            program.terminate()
            _, alive = psutil.wait_procs(tree, 5)
            for each in alive:
                each.kill()


def wait_for(url: str, model: str, program: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    asking = urllib.request.Request(url, body_of(model), {"content-type": "application/json"})
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(asking, timeout=30).read()
            return
        if program.poll() is not None or time.monotonic() > deadline:
            assert program.stderr is not None
            program.kill()
            raise RuntimeError(program.stderr.read().decode()[-2_000:])
        time.sleep(0.1)


def body_of(model: str) -> bytes:
    return json.dumps([round(0.001 * number, 3) for number in range(SIZES[model])]).encode()


def tree_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for each in tree_of(process):
        with contextlib.suppress(psutil.Error):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def load(process: psutil.Process, url: str, script: Path, connections: int) -> Run:
    command = ["wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script), "--timeout", "30"]
    subprocess.run([*command, f"-d{WARM_UP_S}s", url], capture_output=True, check=True)
    before = cpu_s(process)
    told = subprocess.run(
        [*command, f"-d{SECONDS}s", url], capture_output=True, check=True, text=True
    ).stdout
    used = cpu_s(process) - before
    count = int(re.findall(r"(\d+) requests in", told)[0])
    failed = re.findall(r"Non-2xx or 3xx responses: (\d+)", told)
    return Run(
        float(re.findall(r"Requests/sec:\s+([\d.]+)", told)[0]),
        milliseconds(re.findall(r"50%\s+(\S+)", told)[0]),
        milliseconds(re.findall(r"99%\s+(\S+)", told)[0]),
        1_000 * used / max(1, count),
        int(failed[0]) if failed else 0,
    )


def milliseconds(text: str) -> float:
    number, unit = re.findall(r"([\d.]+)(\D+)", text)[0]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1_000.0, "m": 60_000.0}[unit]


def memory_mb(process: psutil.Process) -> float:
    total = 0
    for each in tree_of(process):
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / 1e6


def idle_percent(process: psutil.Process) -> float:
    before, began = cpu_s(process), time.monotonic()
    time.sleep(1.0)
    return 100 * (cpu_s(process) - before) / (time.monotonic() - began)


def measure(model: str, servers: list[str], rounds: int, script: Path) -> None:
    runs: dict[tuple[str, int], list[Run]] = {}
    still: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for server in servers:
            with served(server, model) as (process, url):
                for connections in CONNECTIONS:
                    found = load(process, url, script, connections)
                    runs.setdefault((server, connections), []).append(found)
                told = memory_mb(process), idle_percent(process)
                still.setdefault(server, []).append(told)
    show(model, servers, runs, still)


def show(
    model: str,
    servers: list[str],
    runs: dict[tuple[str, int], list[Run]],
    still: dict[str, list[tuple[float, float]]],
) -> None:
    print(f"\n{model}: requests/s, p50/p99 ms, CPU ms a request; of teamster's rate")
    for connections in CONNECTIONS:
        first = statistics.median(run.rate for run in runs[servers[0], connections])
        for server in servers:
            found = runs[server, connections]
            rate, p50, p99, cpu, failed = (
                statistics.median(run[index] for run in found) for index in range(5)
            )
            bad = f"  {failed:.0f} failed" if failed else ""
            print(
                f"  c={connections:<3} {server:14} {rate:9.0f}  {p50:8.2f}/{p99:<8.2f} {cpu:7.3f}"
                f"  {rate / first:5.2f}{bad}"
            )
    for server in servers:
        memory, idle = (statistics.median(each[i] for each in still[server]) for i in (0, 1))
        print(f"  {server:14} {memory:7.0f} MB, idle {idle:.1f}% of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--servers", nargs="+", default=list(SERVERS))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("this needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            script = Path(folder) / f"{model}.lua"
            script.write_text(
                'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
                f"wrk.body = '{body_of(model).decode()}'\n"
            )
            measure(model, arguments.servers, arguments.rounds, script)


if __name__ == "__main__":
    main()
