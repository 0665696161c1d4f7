# SPDX-License-Identifier: BSD-3-Clause
"""Tensors inside of containers."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teamster.tensors.nest import (
    is_dataclass_instance,
    is_namedtuple,
    parts_of,
    remake,
    tensors_of,
    walk,
)


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Batch:
    image: Any
    label: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    image: Any
    note: Any = "note"


@dataclasses.dataclass
class Computed:
    image: Any
    size: int = dataclasses.field(init=False, default=7)


leaves = st.one_of(
    st.integers(0, 3).map(lambda n: torch.full((2,), float(n))),
    st.none(),
    st.text(max_size=2),
    st.integers(),
)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Batch, inner, inner),
        st.builds(Frozen, inner, inner),
    ),
    max_leaves=8,
)


def shape_of(value: Any) -> Any:
    """The types, all the way down."""
    return type(value), [shape_of(part) for part in parts_of(value) or ()]


@settings(max_examples=50, deadline=None)
@given(nested)
def test_a_walk_keeps_the_structure_and_visits_every_tensor_once(value: Any) -> None:
    found = tensors_of(value)
    seen: list[torch.Tensor] = []

    def visit(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor)
        return tensor + 1

    walked = walk(value, visit)
    assert shape_of(walked) == shape_of(value)
    assert [id(each) for each in seen] == [id(each) for each in found]
    assert all(
        torch.equal(new, old + 1) for new, old in zip(tensors_of(walked), found, strict=True)
    )


@settings(max_examples=25, deadline=None)
@given(nested)
def test_a_walk_that_changes_nothing_gives_the_same_object_back(value: Any) -> None:
    assert walk(value, lambda tensor: tensor) is value


def test_the_original_containers_are_left_as_they_were() -> None:
    value = {
        "a": [torch.ones(1)],
        "b": Batch(torch.ones(1), "name"),
        "c": Point(torch.ones(1), None),
    }
    before = [id(each) for each in tensors_of(value)]
    walk(value, lambda tensor: tensor * 2)
    assert [id(each) for each in tensors_of(value)] == before


def test_types_of_containers_are_kept() -> None:
    x = torch.ones(1)
    default = collections.defaultdict(list, a=x)
    for value in (
        collections.OrderedDict(b=x, a=x),
        default,
        Point(x, 1),
        Batch(x, 2),
        Frozen(x),
        Computed(x),
        [x],
        (x,),
    ):
        made = walk(value, lambda tensor: tensor + 1)
        assert type(made) is type(value)
        assert made is not value
        assert torch.equal(tensors_of(made)[0], x + 1)
    made = walk(default, lambda tensor: tensor + 1)
    assert made["new"] == []
    assert list(walk(collections.OrderedDict(b=x, a=x), lambda tensor: tensor + 1)) == ["b", "a"]
    assert walk(Computed(x), lambda tensor: tensor + 1).size == 7


def test_what_torch_returns_under_names_is_a_container() -> None:
    found = torch.tensor([[1.0, 3.0, 2.0]]).max(1)
    walked = walk(found, lambda tensor: tensor + 1)
    assert type(walked) is type(found)
    assert (walked.values.item(), walked.indices.item()) == (4.0, 2)


@pytest.mark.parametrize(
    "value", [torch.Size([1, 2]), "text", b"bytes", 3, None, {1, 2}, range(3), Batch, object()]
)
def test_what_is_no_container_is_passed_on(value: Any) -> None:
    assert parts_of(value) is None
    assert walk(value, lambda tensor: tensor + 1) is value
    assert tensors_of(value) == []


def test_a_tensor_that_is_there_twice_is_found_twice() -> None:
    x = torch.ones(1)
    assert len(tensors_of([x, {"again": x}])) == 2


def test_a_container_is_remade_from_its_parts() -> None:
    for value in ([1, 2], (1, 2), {"a": 1, "b": 2}, Point(1, 2), Batch(1, 2), Frozen(1, 2)):
        assert remake(value, parts_of(value) or []) == value
    assert remake(Frozen(1, 2), [3, 4]) == Frozen(3, 4)


def test_named_tuples_and_dataclasses_are_told_from_their_likes() -> None:
    assert is_namedtuple(Point(1, 2))
    assert not is_namedtuple((1, 2))
    assert is_dataclass_instance(Batch(1, 2))
    assert not is_dataclass_instance(Batch)
