# SPDX-License-Identifier: BSD-3-Clause
"""``teamster load``, at a server of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from teamster.cli.main import main
from teamster.serve import Server
from tests.train.launching import free_port


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(lambda x: 2 * x, example=1, token="secret").start() as running:
        yield running.url + "/predict"


def loaded(url: str, tmp_path: Path, *more: str, name: str = "in.json", text: str = "[1]") -> int:
    (tmp_path / name).write_text(text)
    return main(
        [
            *("load", url, "--input", str(tmp_path / name), "--seconds", "0.3"),
            *("--header", "Authorization: Bearer secret", *more),
        ]
    )


def test_a_closed_loop(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loaded(url, tmp_path, "--connections", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{url}: 2 connections, each one after the other, for 0.3 s"
    assert lines[1].endswith(" 200 OK")
    assert lines[2].startswith("  good       ")
    assert lines[3].startswith("  latency    p50 ")


def test_an_open_loop_as_json(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "--rate", "100", "--arrivals", "uniform", "--json"
    assert loaded(url, tmp_path, *more, name="in.jsonl", text='[1]\n\n"x"\n') == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked"] == 30
    assert found["statuses"] == {"200": 30}
    assert found["latency"]["p50"] <= found["latency"]["max"]


def test_a_recorded_trace(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "moments").write_text("0\n0.1\n0.2\n")
    assert loaded(url, tmp_path, "--arrivals", str(tmp_path / "moments"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["asked"] == 3


def test_no_good_answer_is_an_error(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", url, "--seconds", "0.1", "--connections", "1"]) == 1
    assert "405 Method Not Allowed" in capsys.readouterr().out


def test_a_sweep_with_a_picture(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "load.png"
    assert loaded(url, tmp_path, "--sweep", "--plot", str(picture)) == 0
    rows = [each.split() for each in capsys.readouterr().out.splitlines()[2:]]
    asked = [float(each[0].replace(",", "")) for each in rows]
    assert len(rows) == 8
    assert asked == sorted(asked)
    with Image.open(picture) as image:
        assert image.size[0] > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0"], "--rate must be above 0"),
        (["--seconds", "-1"], "--seconds must be above 0"),
        (["--plot", "x.png"], "add --sweep"),
        (["--sweep", "--rate", "3"], "leave out --rate"),
        (["--header", "x"], "give NAME:VALUE"),
        (["--input", "missing.json"], "--input missing.json: No such file"),
        (["--input", "/dev/null"], "it is empty"),
        (["--rate", "5", "--arrivals", "often"], "there is no file often"),
        ([], "cannot connect to http://localhost:"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", f"localhost:{free_port()}", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
