# SPDX-License-Identifier: BSD-3-Clause
"""Every public docstring tells its parameters, what comes back, the units, and shows one example
that runs.

Public is what can be reached from ``teamster.__all__``: functions, classes, and the methods that
classes of ours define. The examples themselves run in ``make doctest``.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass

import pytest

import teamster

SECTION = re.compile(
    r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes|Warning|Warns):\s*$"
)
ENTRY = re.compile(r"^\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)$")

# A parameter whose name says that it is a time or a size has to say in which unit.
UNITS = {
    re.compile(r"(^|_)(timeout|seconds|delay|interval|deadline)($|_)"): re.compile(
        r"\bseconds?\b|\b\d+ s\b"
    ),
    re.compile(r"(^|_)(bytes|memory|size)$"): re.compile(r"\bbytes?\b"),
    re.compile(r"_ns$"): re.compile(r"\bnanoseconds?\b"),
}


@dataclass(frozen=True)
class Public:
    name: str
    value: object  # the class, or the function behind the method
    kind: str  # "function", "method", "property", "class", "error"

    def __str__(self) -> str:
        return self.name


def sections(text: str) -> dict[str, list[str]]:
    """The Google-style sections of a docstring: title -> its lines, dedented by one level."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.splitlines():
        title = SECTION.match(line)
        if title is not None:
            current = title.group(1)
            found[current] = []
            continue
        if line and not line[0].isspace():
            current = ""
        found[current].append(line.removeprefix("    "))
    return found


def entries(lines: list[str]) -> dict[str, str]:
    """``name: text`` of a section, the text of an entry on one line."""
    found: dict[str, str] = {}
    for line in lines:
        entry = ENTRY.match(line)
        if entry is not None:
            found[entry.group(1)] = entry.group(2)
        elif line.startswith(" ") and found:
            found[list(found)[-1]] += f" {line.strip()}"
    return found


def ours(value: object) -> bool:
    return (getattr(value, "__module__", "") or "").partition(".")[0] == "teamster"


def members(name: str, kind: type) -> Iterator[Public]:
    for attribute in sorted(set(dir(kind))):
        owner = next((base for base in kind.__mro__ if attribute in vars(base)), object)
        if attribute.startswith("_") or not ours(owner):
            continue
        value = inspect.getattr_static(kind, attribute)
        if isinstance(value, property):
            yield Public(f"{name}.{attribute}", value, "property")
        elif isinstance(value, staticmethod | classmethod):
            yield Public(f"{name}.{attribute}", getattr(kind, attribute), "method")
        elif isinstance(value, types.FunctionType):
            yield Public(f"{name}.{attribute}", value, "method")


def publics() -> Iterator[Public]:
    for name in getattr(teamster, "__all__", ()):
        # test_public_names.py demands the list, and that its names resolve
        value = getattr(teamster, name, None)
        if inspect.isclass(value) and ours(value):
            yield Public(name, value, "error" if issubclass(value, BaseException) else "class")
            yield from members(name, value)
        elif inspect.isroutine(value) and ours(value):
            yield Public(name, value, "function")


AS_OF = re.compile(r"^Arguments as of `([\w.]+)`", re.MULTILINE)


def docstring(public: Public) -> str:
    text = inspect.getdoc(public.value) or ""
    if not text and public.kind == "method":
        # A method that keeps a promise of its base class may leave it to say so
        kind, _, attribute = public.name.rpartition(".")
        text = inspect.getdoc(getattr(getattr(teamster, kind), attribute)) or ""
    return text


def is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def parameters(public: Public) -> list[str]:
    value = public.value
    if public.kind == "property" or not callable(value):
        return []
    if inspect.isclass(value):
        own = vars(value).get("__init__") or vars(value).get("__new__")
        if is_protocol(value) or (own is None and not is_dataclass(value)):
            return []
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return []
    return [
        name
        for name in signature.parameters
        if name not in ("self", "cls") and not name.startswith("_")
    ]


def described(public: Public) -> dict[str, str]:
    found = sections(docstring(public))
    both = {**entries(found.get("Attributes", [])), **entries(found.get("Args", []))}
    if (other := AS_OF.search(docstring(public))) is not None:  # said once, there
        both = {**described(next(each for each in PUBLIC if each.name == other.group(1))), **both}
    if inspect.isclass(public.value):
        own = sections(inspect.getdoc(vars(public.value).get("__init__")) or "")
        both = {**entries(own.get("Args", [])), **both}
    return both


def annotated_result(public: Public) -> bool:
    annotation = getattr(public.value, "__annotations__", {}).get("return", None)
    return annotation not in (None, "None", "NoReturn", "Never", "Self", type(None))


PUBLIC = list(publics())
EVERY = pytest.mark.parametrize("public", PUBLIC, ids=str)


def some(wanted: Callable[[Public], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "public", [public for public in PUBLIC if wanted(public)], ids=str
    )


def test_something_is_public() -> None:
    assert PUBLIC


@EVERY
def test_it_has_a_docstring(public: Public) -> None:
    first = docstring(public).partition("\n")[0]
    assert first.strip(), f"{public} has no docstring"
    assert first.rstrip().endswith((".", "!", "?", ":", "::")), (
        f"the summary of {public} is one whole sentence"
    )


@some(lambda public: bool(parameters(public)) and public.kind != "error")
def test_every_parameter_is_described(public: Public) -> None:
    text = described(public)
    assert [name for name in parameters(public) if not text.get(name)] == []


@some(lambda public: public.kind != "error" and bool(parameters(public)))
def test_no_parameter_is_invented(public: Public) -> None:
    arguments = entries(sections(docstring(public)).get("Args", []))
    assert [name for name in arguments if name not in parameters(public)] == []


@some(lambda public: public.kind in ("function", "method") and annotated_result(public))
def test_what_comes_back_is_described(public: Public) -> None:
    found = sections(docstring(public))
    text = " ".join(found.get("Returns", []) + found.get("Yields", []))
    assert text.strip(), f"{public} returns something: Returns: or Yields:"


@some(
    lambda public: (
        bool(UNITS) and any(unit.search(name) for unit in UNITS for name in described(public))
    )
)
def test_units_are_named(public: Public) -> None:
    missing = []
    for name, text in described(public).items():
        for pattern, unit in UNITS.items():
            if pattern.search(name) and not unit.search(text):
                missing.append(f"{name}: {unit.pattern}")
    assert missing == []


@some(lambda public: public.kind != "property")
def test_it_shows_an_example(public: Public) -> None:
    found = sections(docstring(public))
    example = "\n".join(found.get("Example", []) + found.get("Examples", []))
    assert ">>>" in example, f"{public} has no section Example: with >>>"
