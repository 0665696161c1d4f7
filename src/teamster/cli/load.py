# SPDX-License-Identifier: BSD-3-Clause
"""``teamster load``: asks a server for some time, and says what it answered, how fast."""

from __future__ import annotations

from teamster.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from teamster.serve.load_generator.connection import Target
    from teamster.serve.load_generator.results import LoadResults
    from teamster.serve.load_generator.sweeping import Point

DESCRIPTION = (
    "Ask a server for some time. With --rate requests come as from many clients, whether or not "
    "those before have their answers, and latencies count from the moment at which a request was "
    "due. Without it each connection sends its next request when it has its answer."
)
EPILOG = "teamster load http://localhost:8000/predict --rate 200 --input input.json"

_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/json",
    ".msgpack": "application/msgpack",
}
_LATE_S = 0.005  # of the load generator: more than it should add to a latency


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster load`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["localhost:8000/predict", "--rate", "200"]).rate
        200.0
    """
    parser.add_argument("url", help="as http://localhost:8000/predict")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="the body of a request; of a .jsonl file each line, in turn; without it they are GET",
    )
    parser.add_argument(
        "--rate", type=float, metavar="R", help="requests a second, in the mean (an open loop)"
    )
    parser.add_argument(
        "--arrivals",
        default="poisson",
        metavar="HOW",
        help="poisson, uniform, burst:N, or a file with a moment in seconds on each line",
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for how long")
    parser.add_argument(
        "--connections",
        type=int,
        metavar="N",
        help="at a time; 8 without --rate, and 500 at the most with it",
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="may be given again"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn")
    parser.add_argument(
        "--sweep", action="store_true", help="at shares of what the server can: latency, throughput"
    )
    parser.add_argument("--plot", metavar="FILE", help="with --sweep: a picture of it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Ask, and print what came of it.

    Args:
        arguments: The parsed arguments.

    Returns:
        The exit code: 0, or 1 where there was no good answer.

    Raises:
        UsageError: the arguments make no sense, or the server is not there.
    """
    try:
        from teamster.serve.load_generator.connection import Target
    except ImportError as error:
        raise UsageError(f"a load needs {error.name}: pip install 'teamster[serve]'") from None
    _check(arguments)
    target = Target.of(arguments.url)
    headers = dict(_header(each) for each in arguments.header)
    requests = _requests(arguments.input, headers, target)
    if arguments.sweep:
        return _sweep(arguments, target, requests)
    return _once(arguments, target, requests)


def _check(arguments: argparse.Namespace) -> None:
    for name in ("rate", "seconds", "connections"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name} must be above 0; not {value:g}")
    if arguments.plot and not arguments.sweep:
        raise UsageError("--plot draws a sweep: add --sweep")
    if arguments.sweep and arguments.rate:
        raise UsageError("--sweep finds its rates by itself: leave out --rate")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header {text}: give NAME:VALUE")
    return name.strip().lower(), value.strip()


def _requests(path: str | None, headers: dict[str, str], target: Target) -> list[bytes]:
    from pathlib import Path

    if path is None:
        return [target.request(b"", headers)]
    suffix = Path(path).suffix
    try:
        whole = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--input {path}: {error.strerror}") from None
    bodies = whole.splitlines() if suffix == ".jsonl" else [whole]
    bodies = [each for each in bodies if each.strip()]
    if not bodies:
        raise UsageError(f"--input {path}: it is empty")
    kind = _TYPES.get(suffix, "application/octet-stream")
    return [target.request(each, {"content-type": kind, **headers}) for each in bodies]


def _once(arguments: argparse.Namespace, target: Target, requests: list[bytes]) -> int:
    from pathlib import Path

    from teamster.serve.load_generator.arrivals import arrivals_of
    from teamster.serve.load_generator.generator import closed_loop, open_loop

    recorded = Path(arguments.arrivals).is_file()
    if recorded and arguments.rate:
        raise UsageError(f"the rate is that of {arguments.arrivals}: leave out --rate")
    if arguments.rate or recorded:
        moments = arrivals_of(
            arguments.arrivals, arguments.rate or 1.0, arguments.seconds, arguments.seed
        )
        results = open_loop(target, requests, moments, connections=arguments.connections or 500)
    else:
        results = closed_loop(
            target, requests, connections=arguments.connections or 8, seconds=arguments.seconds
        )
    if arguments.json:
        import json

        print(json.dumps({"url": target.url, **results.to_dict()}, indent=2))
    else:
        _print(results, target, arguments)
    return 0 if results.good else 1


def _print(results: LoadResults, target: Target, arguments: argparse.Namespace) -> None:
    from http import HTTPStatus

    how = f"{arguments.rate:g} a second ({arguments.arrivals})" if arguments.rate else ""
    how = how or f"{results.connections} connections, each one after the other"
    print(f"{target.url}: {how}, for {arguments.seconds:g} s")
    answers = [
        f"{count:,} {status} {HTTPStatus(status).phrase if status in list(HTTPStatus) else ''}"
        for status, count in sorted(results.statuses.items())
    ]
    print(f"  asked      {results.asked:,}; answers: {', '.join(answers) or 'none'}")
    for reason, count in results.errors.most_common():
        print(f"  no answer  {count:,}: {reason}")
    print(f"  good       {results.rate:,.1f} a second")
    if results.good:
        shown = [f"p{share * 100:g} {_ms(results.quantile(share))}" for share in (0.5, 0.9, 0.99)]
        print(f"  latency    {'  '.join(shown)}  max {_ms(results.quantile(1.0))}")
    if results.lag > _LATE_S:
        print(
            f"  this program itself was {_ms(results.lag)} late (p99): latencies are overstated; "
            "it needs a core of its own"
        )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3g} ms"


def _sweep(arguments: argparse.Namespace, target: Target, requests: list[bytes]) -> int:
    from pathlib import Path

    from teamster.serve.load_generator.sweeping import draw, sweep

    if not arguments.json:
        print(f"{target.url}: {arguments.seconds:g} s each, {arguments.arrivals}")
        print(_LINE.format("asked/s", "good/s", "refused", "failed", "p50 ms", "p99 ms"))
    points = sweep(
        target,
        requests,
        connections=arguments.connections or 64,
        seconds=arguments.seconds,
        arrivals=arguments.arrivals,
        told=(lambda point: None) if arguments.json else _print_point,
    )
    if arguments.plot:
        draw(points, target.url, Path(arguments.plot))
    if arguments.json:
        import json

        found: list[dict[str, Any]] = [
            {"rate_asked": each.rate, **each.results.to_dict()} for each in points
        ]
        print(json.dumps({"url": target.url, "points": found}, indent=2))
    return 0


_LINE = "  {:>9}  {:>9}  {:>8}  {:>8}  {:>9}  {:>9}"


def _print_point(point: Point) -> None:
    results = point.results
    refused = results.statuses.get(429, 0)
    cells = [1e3 * (results.quantile(share) or 0.0) for share in (0.5, 0.99)]
    print(
        _LINE.format(
            f"{point.rate:,.0f}",
            f"{results.rate:,.0f}",
            f"{refused:,}",
            f"{results.asked - results.good - refused:,}",
            *(f"{each:.3g}" for each in cells),
        ),
        flush=True,
    )
