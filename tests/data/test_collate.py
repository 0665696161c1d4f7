# SPDX-License-Identifier: BSD-3-Clause
"""Rows of a batch that are collated apart give what torch makes of all of them."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data._utils.collate import default_collate

from teamster.data.collate import Collated, Raw, collate_part, merge

Point = namedtuple("Point", "x y")


class Tagged(dict[str, Any]):
    def __init__(self, tag: str, **more: Any) -> None:
        super().__init__(**more)
        self.tag = tag


class Listed(list[Any]):
    def __init__(self, first: Any, second: Any) -> None:
        super().__init__([first, second])


KINDS: dict[str, Callable[[int], Any]] = {
    "tensor": lambda i: torch.full((2, 3), i),
    "no dimension": lambda i: torch.tensor(i),
    "array": lambda i: numpy.full(3, i, numpy.int16),
    "array of floats": lambda i: numpy.full((1, 2), i / 3),
    "NumPy's number": lambda i: numpy.float32(i),
    "integer": lambda i: i,
    "float": lambda i: i / 3,
    "boolean": lambda i: i % 2 == 0,
    "first an integer": lambda i: i if i % 2 == 0 else i + 0.5,
    "first a float": lambda i: i if i % 2 else i + 0.5,
    "a boolean among integers": lambda i: i if i != 3 else True,
    "tensors of two types": lambda i: torch.tensor([i]) if i != 5 else torch.tensor([0.5]),
    "text": lambda i: f"name {i}",
    "bytes": lambda i: b"%d" % i,
    "tuple": lambda i: (i, torch.ones(2), "a"),
    "list": lambda i: [i, i / 2],
    "named": lambda i: Point(i, (i, torch.ones(1))),
    "dict": lambda i: {"x": torch.tensor([i]), "y": {"z": [i, "t"], "u": i / 7}},
    "keys in another order": lambda i: {"a": i, "b": 2 * i} if i % 2 else {"b": 2 * i, "a": i},
    "ordered": lambda i: OrderedDict(a=i, b=torch.ones(1)),
    "counter": lambda i: Counter(a=i + 1),
    "defaultdict": lambda i: defaultdict(list, a=i),
    "dict with arguments": lambda i: Tagged("t", x=torch.tensor(i), y=i),
    "list with arguments": lambda i: Listed(i, torch.ones(1)),
    "empty tuple": lambda i: (),
    "empty dict": lambda i: {},
    "none": lambda i: None,
    "mixed": lambda i: i if i % 3 else "text",
    "lists of two lengths": lambda i: [i] * (1 + i % 2),
    "tensors of two shapes": lambda i: torch.ones(1 + i // 4),
    "keys that are missing": lambda i: {"a": i} if i < 6 else {"b": i},
    "a sparse one": lambda i: torch.eye(2).to_sparse(),
    "an object": lambda i: object(),
}


def outcome(make: Callable[[], Any]) -> tuple[Any, Any]:
    try:
        return make(), None
    except Exception as error:
        return None, (type(error), str(error).splitlines()[0])


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        equal = torch.equal(ours.to_dense(), theirs.to_dense())
        return bool(ours.dtype == theirs.dtype and ours.layout == theirs.layout and equal)
    if type(ours) is not type(theirs):
        return False
    if isinstance(theirs, dict):
        alike = all(same(ours[key], theirs[key]) for key in theirs)
        return (
            alike
            and list(ours) == list(theirs)
            and getattr(ours, "tag", 0) == getattr(theirs, "tag", 0)
        )
    if isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_parts_make_what_all_samples_make(kind: str, rows: int) -> None:
    def samples() -> list[Any]:
        return [KINDS[kind](index) for index in range(8)]

    def in_parts() -> Any:
        own = samples()
        return merge([collate_part(own[first : first + rows]) for first in range(0, 8, rows)])

    theirs, error = outcome(lambda: default_collate(samples()))
    ours, own_error = outcome(in_parts)
    assert own_error == error
    assert error is not None or same(ours, theirs)


def test_only_the_usual_is_collated_by_workers() -> None:
    assert isinstance(collate_part([(1, torch.ones(1))] * 2), Collated)
    assert isinstance(collate_part([Counter(a=1)] * 2), Raw)
