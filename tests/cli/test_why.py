# SPDX-License-Identifier: BSD-3-Clause
"""``teamster why``, beside a server."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from teamster.cli.main import main
from teamster.serve import Server
from tests.train.launching import free_port


def test_the_reasons_and_the_slowest(capsys: pytest.CaptureFixture[str]) -> None:
    with Server({"small": abs, "other": abs}, workers=1).start() as running:
        for _ in range(3):
            urllib.request.urlopen(running.url + "/small/predict", b"-1").read()
        assert main(["why", running.url.removeprefix("http://")]) == 0
        shown = capsys.readouterr().out
        assert main(["why", running.url + "/", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
    lines = shown.splitlines()
    assert re.fullmatch(
        r"small \(/small/predict\), the last 3 requests: p50 \S+ ms, p99 \S+ ms", lines[0]
    )
    assert lines[1].startswith("  the slowest request took ")
    assert lines[4].split()[:6] == ["total", "read", "decode", "hold", "queue", "compute"]
    assert len({len(each) for each in lines[4:6]}) == 1  # one column under the other
    assert lines[-2:] == ["other (/other/predict)", "  no request has been answered yet"]
    assert found["models"]["/small/predict"]["requests"] == 3


def test_no_server_and_another_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["why", f"localhost:{free_port()}"]) == 2
    assert "Connection refused" in capsys.readouterr().err
    with Server(abs, workers=1).start() as running:
        monkeypatch.setattr("teamster.cli.why._PATH", "/")  # it has JSON, and no reasons
        monkeypatch.setattr("json.load", lambda file: [1])
        assert main(["why", running.url]) == 2
        assert "is no server of Teamster" in capsys.readouterr().err
        monkeypatch.setattr("teamster.cli.why._PATH", "/nothing")
        assert main(["why", running.url]) == 2
        assert "Not Found" in capsys.readouterr().err
