# SPDX-License-Identifier: BSD-3-Clause
"""Goes through the instructions of a function without running them.

It says what is done to values that are known.
"""

from __future__ import annotations

import builtins
import dis
import re
import types
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Protocol

NOTHING: Any = object()
_ONLY_TAKE = ("STORE_", "DELETE_", "POP_", "RETURN_", "RAISE_")
_CHANGED_IN_PLACE = (list, set, dict, bytearray, deque, Counter)
_LEAVING = ("JUMP_FORWARD", "JUMP_BACKWARD", "RETURN_", "RAISE_", "RERAISE")
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_ONLY_GIVE = (
    "LOAD_",
    "PUSH_",
    "MAKE_CELL",
    "COPY_FREE_VARS",
    "RESUME",
    "NOP",
    "CACHE",
    "EXTENDED_ARG",
    "JUMP_",
)


@dataclass(frozen=True, slots=True)
class Thing:
    """A value; `library` when it was found in a module of a library, which all threads share."""

    value: Any
    name: str
    library: bool = False


UNKNOWN = Thing(NOTHING, "")


class KnownNames(Protocol):
    """The object that wants to know what is done to values, and answers for names."""

    def set_in(self, thing: Thing, attribute: str) -> None:
        """An attribute, or an element (then its name is empty), is set or deleted."""

    def get_from(self, thing: Thing, name: str) -> Thing:
        """An attribute is asked for; returns it."""

    def get(self, thing: Thing) -> Thing:
        """A global is asked for; returns it."""

    def call(self, target: Thing, given: dict[int | str, Thing]) -> Thing:
        """Something is called, with such of its arguments as are known.

        Returns what is known of the result.
        """

    def give(self, thing: Thing) -> None:
        """It is returned."""


class Interpreter:
    """Knows the stack and the variables as far as they are what the function carries.

    Args:
        names: globals.
        variables: of the function, and those of others that it uses.
        told: the object that wants to know.
    """

    def __init__(
        self, names: dict[str, Any], variables: dict[str, Thing], told: KnownNames
    ) -> None:
        self._names = names
        self._variables = variables
        self._told = told
        self._stack: list[Thing] = []
        self._jumps: dict[int, list[Thing]] = {}  # what is on the stack where they lead to
        self._constants: tuple[Any, ...] = ()
        self._keywords: Any = ()

    def run(self, code: types.CodeType) -> None:
        """Go through all of it."""
        self._constants = code.co_consts
        left = False  # nothing goes on from the instruction before
        for each in dis.get_instructions(code):
            if left or each.offset in self._jumps:
                self._meet(self._jumps.pop(each.offset, []), alone=left)
            name = each.opname
            left = name.startswith(_LEAVING)
            if "_FAST" in name:
                self._fast(name, each.argval)
            elif (step := _STEPS.get(name)) is not None:
                step(self, each)
            else:
                self._other(each)
            if each.opcode in _JUMPS:
                less = dis.stack_effect(each.opcode, each.arg, jump=False) - dis.stack_effect(
                    each.opcode, each.arg, jump=True
                )
                self._jumps[each.argval] = self._stack[: len(self._stack) - max(0, less)]

    def _meet(self, came: list[Thing], *, alone: bool) -> None:
        """Go on with what a jump brings, where the way from above brings nothing, or knows less."""
        if alone:
            self._stack = came
        elif len(came) == len(self._stack):
            self._stack = [
                mine if mine.name else theirs
                for mine, theirs in zip(self._stack, came, strict=True)
            ]

    def _pop(self, count: int = 1) -> list[Thing]:
        """The uppermost, the lowest of them first."""
        found = (
            self._stack[len(self._stack) - count :] if len(self._stack) >= count else self._stack[:]
        )
        del self._stack[max(0, len(self._stack) - count) :]
        return [UNKNOWN] * (count - len(found)) + found

    def _other(self, each: dis.Instruction) -> None:
        """Whatever it does, of what it gives nothing is known."""
        effect = dis.stack_effect(each.opcode, each.arg, jump=False)
        if each.opname.startswith(_ONLY_TAKE):
            self._pop(-effect)
        elif each.opname.startswith(_ONLY_GIVE) or (
            effect > 0 and each.opname.startswith("BUILD_")
        ):
            self._stack += [UNKNOWN] * effect
            if effect < 0:
                self._pop(-effect)
        else:
            self._pop(max(1, 1 - effect))
            self._stack += [UNKNOWN] * max(1, effect + 1)

    def _fast(self, name: str, argval: Any) -> None:
        variables = argval if isinstance(argval, tuple) else (argval,)
        for act, variable in zip(
            re.findall("LOAD_FAST|STORE_FAST|DELETE_FAST", name), variables, strict=False
        ):
            if act == "LOAD_FAST":
                self._stack.append(self._variables.get(variable, UNKNOWN))
            elif act == "STORE_FAST":
                self._variables[variable] = self._pop()[0]

    def _global(self, each: dis.Instruction) -> None:
        name = each.argval
        # A place for the object of a method
        extra = dis.stack_effect(each.opcode, each.arg, jump=False) - 1
        value = self._names.get(name, vars(builtins).get(name, NOTHING))
        self._stack += [UNKNOWN] * extra + [
            UNKNOWN if value is NOTHING else self._told.get(Thing(value, name))
        ]

    def _cell(self, each: dis.Instruction) -> None:
        self._stack.append(self._variables.get(each.argval, UNKNOWN))

    def _constant(self, each: dis.Instruction) -> None:
        self._stack.append(
            Thing(each.argval, "") if isinstance(each.argval, (str, int, tuple)) else UNKNOWN
        )

    def _attribute(self, each: dis.Instruction) -> None:
        (owner,) = self._pop()
        found = self._told.get_from(owner, each.argval) if owner.name else UNKNOWN
        extra = dis.stack_effect(each.opcode, each.arg, jump=False)
        self._stack += [UNKNOWN] * extra + [found if found.value is not NOTHING else UNKNOWN]

    def _element(self, each: dis.Instruction) -> None:
        owner, key = self._pop(2)
        self._stack.append(_part(owner, key) if owner.name else UNKNOWN)

    def _iterate(self, each: dis.Instruction) -> None:
        (owner,) = self._pop()
        self._stack.append(_part(owner, UNKNOWN) if owner.name else UNKNOWN)

    def _next(self, each: dis.Instruction) -> None:
        self._stack.append(self._stack[-1] if self._stack else UNKNOWN)

    def _operation(self, each: dis.Instruction) -> None:
        if each.argrepr == "[]":
            self._element(each)
            return
        owner, _ = self._pop(2)
        in_place = each.argrepr.endswith("=") and (
            type(owner.value) in _CHANGED_IN_PLACE or _is_array(owner.value)
        )
        if in_place and owner.name:
            self._told.set_in(owner, "")
        self._stack.append(owner if in_place else UNKNOWN)

    def _set_attribute(self, each: dis.Instruction) -> None:
        (owner,) = self._pop()
        if each.opname == "STORE_ATTR":
            self._pop()
        if owner.name:
            self._told.set_in(owner, each.argval)

    def _set_element(self, each: dis.Instruction) -> None:
        taken = self._pop(-dis.stack_effect(each.opcode, each.arg, jump=False))
        owner = taken[0 if each.opname == "DELETE_SUBSCR" else 1]
        if owner.name:
            self._told.set_in(owner, "")

    def _copy(self, each: dis.Instruction) -> None:
        count = each.arg or 1
        self._stack.append(self._stack[-count] if len(self._stack) >= count else UNKNOWN)

    def _swap(self, each: dis.Instruction) -> None:
        count = each.arg or 2
        taken = self._pop(count)
        self._stack += [taken[-1], *taken[1:-1], taken[0]]

    def _pass_over(self, each: dis.Instruction) -> None:
        """Its part is done by the one behind it."""

    def _return(self, _: dis.Instruction) -> None:
        self._told.give(self._pop()[0])

    def _name_keywords(self, each: dis.Instruction) -> None:
        self._keywords = self._constants[each.arg or 0]

    def _call(self, each: dis.Instruction) -> None:
        if each.opname == "CALL_KW":
            self._keywords = self._pop()[0].value
        arguments = self._pop(each.arg or 0)
        target = next((thing for thing in self._pop(2) if thing.name), UNKNOWN)
        keywords = self._keywords if isinstance(self._keywords, tuple) else ()
        self._keywords = ()
        wheres = [*range(len(arguments) - len(keywords)), *keywords]
        known = {where: thing for where, thing in zip(wheres, arguments, strict=True) if thing.name}
        result = (
            Thing(self._names, "globals()")
            if target.value is globals
            else self._told.call(target, known)
        )
        self._stack.append(result)

    def _call_unpacked(self, each: dis.Instruction) -> None:
        """With ``*arguments``, of which nothing is known."""
        taken = self._pop(1 - dis.stack_effect(each.opcode, each.arg, jump=False))
        self._stack.append(
            self._told.call(next((thing for thing in taken if thing.name), UNKNOWN), {})
        )


_STEPS = {
    **dict.fromkeys(("LOAD_GLOBAL", "LOAD_NAME"), Interpreter._global),
    **dict.fromkeys(("LOAD_DEREF", "LOAD_CLASSDEREF"), Interpreter._cell),
    **dict.fromkeys(("LOAD_CONST", "LOAD_SMALL_INT"), Interpreter._constant),
    **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD"), Interpreter._attribute),
    **dict.fromkeys(("STORE_ATTR", "DELETE_ATTR"), Interpreter._set_attribute),
    **dict.fromkeys(("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"), Interpreter._set_element),
    **dict.fromkeys(("CALL", "CALL_KW"), Interpreter._call),
    "CALL_FUNCTION_EX": Interpreter._call_unpacked,
    "BINARY_SUBSCR": Interpreter._element,
    "BINARY_OP": Interpreter._operation,
    "GET_ITER": Interpreter._iterate,
    "FOR_ITER": Interpreter._next,
    "RETURN_VALUE": Interpreter._return,
    "COPY": Interpreter._copy,
    "SWAP": Interpreter._swap,
    "PRECALL": Interpreter._pass_over,
    "KW_NAMES": Interpreter._name_keywords,
}


def _is_array(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("numpy", "torch") and hasattr(
        type(value), "__setitem__"
    )


def _part(owner: Thing, key: Thing) -> Thing:
    """An element of what is known, or another of the same container, which stands for it."""
    value = owner.value
    if _is_array(value):
        return owner  # it is a view
    if isinstance(value, (list, tuple)) and value:
        found = value[0]
    elif isinstance(value, dict):
        default = getattr(value, "default_factory", None)
        found = next(iter(value.values()), default() if default in (list, dict, set) else NOTHING)
        if isinstance(key.value, str):
            found = dict.get(value, key.value, found)
    else:
        return UNKNOWN
    return Thing(found, owner.name, owner.library)
