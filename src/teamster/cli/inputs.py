# SPDX-License-Identifier: BSD-3-Clause
"""What the words of a command line mean.

They mean a function by its name, files, folders, or lines of standard input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from teamster.errors import UsageError
from teamster.tasks.arguments import check_callable


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that runs a function over inputs takes.

    That is the function, the inputs, and ``--glob``.
    """
    parser.add_argument(
        "function", help="package.module:function; modules of the current folder are found, too"
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders (with all files below them), or - for lines of stdin",
    )
    parser.add_argument(
        "--glob",
        default="*",
        metavar="PATTERN",
        help="of a folder take files that match, e.g. '*.py'",
    )


def add_output_argument(
    parser: argparse.ArgumentParser,
    *older: str,
    metavar: str,
    default: str | None = None,
    help: str,
) -> None:
    """Add ``-o`` and ``--output``, which say in every command where what it makes is written.

    `older` are names from before.
    """
    parser.add_argument("-o", "--output", *older, metavar=metavar, default=default, help=help)


def load_function(name: str) -> Callable[[str], Any]:
    """Import ``package.module:function``; modules of the current folder are found, too.

    Raises:
        UsageError: it is not written like that, cannot be imported, or is no function that a loop
            can call.
    """
    found = load_object(name, "function")
    if not callable(found):
        raise UsageError(f"{name!r} is of type {type(found).__name__} and cannot be called")
    check_callable(found)
    function: Callable[[str], Any] = found
    return function


def load_object(name: str, what: str) -> Any:
    """Import ``package.module:name``; modules of the current folder are found, too.

    Args:
        name: as above.
        what: it is, for people.

    Raises:
        UsageError: it is not written like that, or cannot be imported.

    Example:
        >>> load_object("math:pi", "number")
        3.141592653589793
    """
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise UsageError(f"the {what} must be given as package.module:{what}, not {name!r}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    from importlib import import_module

    try:
        found: Any = import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"cannot import {module_name!r}: {type(error).__name__}: {error}"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"module {module_name!r} has no {path!r}; is it spelled like that in "
                f"{getattr(found, '__file__', '?')}?"
            )
        found = getattr(found, part)
    return found


def choose_inputs(words: list[str], pattern: str) -> list[str] | Iterator[str]:
    """Lines of standard input for ``-``, else the files that `words` name.

    It is a list where their number is known.

    Raises:
        UsageError: there is a ``-`` among other words, or something does not exist or cannot be
            read.
    """
    if "-" not in words:
        return list_files(words, pattern)
    if len(words) > 1:
        raise UsageError("- (lines of standard input) cannot be mixed with files and folders")
    return read_lines()


def list_files(words: list[str], pattern: str) -> list[str]:
    """Paths of the files that `words` name.

    Files are taken as they are, folders with all that matches `pattern` below them, sorted.

    Raises:
        UsageError: something does not exist or cannot be read, or a folder has no such file.
    """
    paths: list[str] = []
    for word in words:
        if os.path.isdir(word):
            paths += _list_folder(word, pattern)
        elif os.access(word, os.R_OK):
            paths.append(word)
        else:
            raise UsageError(
                f"{word!r} cannot be read"
                if os.path.exists(word)
                else f"there is no file or folder {word!r}"
            )
    return paths


def _list_folder(folder: str, pattern: str) -> list[str]:
    from pathlib import Path

    found = sorted(str(path) for path in Path(folder).rglob(pattern) if path.is_file())
    if not found:
        raise UsageError(f"no file below {folder!r} matches {pattern!r}")
    return found


def read_lines() -> Iterator[str]:
    """Lines of standard input without their ends, as they come."""
    for line in sys.stdin:
        yield line.rstrip("\r\n")
