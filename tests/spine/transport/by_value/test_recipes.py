# SPDX-License-Identifier: BSD-3-Clause
"""Objects of the standard library that do not pickle, and can be made again."""

import argparse
import ctypes
import json
import pickle
import random
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest

from teamster.spine.transport.by_value.pickler import DefinitionPickler


class Strict(json.JSONDecoder):
    def __init__(self, name: str) -> None:
        super().__init__(object_hook=lambda found: (name, found))


def c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.strtod.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    library.strtod.restype = ctypes.c_double
    return library


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    made.add_argument("--depth", type=int, help=argparse.SUPPRESS)
    group = made.add_argument_group("more").add_mutually_exclusive_group()
    group.add_argument("--fast", action="store_true", default=argparse.SUPPRESS)
    return made


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: struct.Struct("<ih"), lambda it: it.pack(1, 2)),
        (json.JSONDecoder, lambda it: it.decode('{"a": [1, 2.5]}')),
        (lambda: Strict("x"), lambda it: it.decode('{"a": 1}')),
        (lambda: json.JSONEncoder(indent=1, sort_keys=True), lambda it: it.encode({"b": 1})),
        (random.SystemRandom, lambda it: 0 <= it.random() < 1),
        (
            lambda: re.Scanner([("[ab]", lambda _, found: found)], re.I),
            lambda it: it.scan("aB"),
        ),
        (c_library, lambda it: it.strtod(b"2.5", None)),
        (parser, lambda it: vars(it.parse_args(["--fast"]))),
        (parser, lambda it: it.format_help()),
    ],
)
def test_it_does_the_same_afterwards(make: Callable[[], Any], use: Callable[[Any], Any]) -> None:
    thing = make()
    again = pickle.loads(DefinitionPickler.pack(thing, whole=True).data)
    assert again is not thing
    assert type(again) is type(thing)
    assert use(again) == use(thing)
