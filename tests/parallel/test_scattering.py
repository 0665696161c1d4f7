# SPDX-License-Identifier: BSD-3-Clause
"""Slices of the batch: sizes, nesting, gradients, and scatter followed by gather."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from teamster.errors import UsageError
from teamster.parallel.gathering import gather
from teamster.parallel.scattering import batch_size, chunk_sizes, scatter, scatter_kwargs
from teamster.tensors.nest import parts_of, tensors_of

TWO = ["cpu", "cpu"]
DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
settings.register_profile("slices", max_examples=25, deadline=None)
SLICES = settings.get_profile("slices")


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Sample:
    image: Any
    label: Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One example: a nested value, how many replicas, and along which dimension."""

    value: Any
    replicas: int
    dim: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dim = draw(st.integers(-2, 1))
    batch = draw(st.integers(0, 7))

    def tensor(others: list[int], dtype: torch.dtype, flipped: bool) -> torch.Tensor:
        shape = [*others]
        shape.insert(dim if dim >= 0 else len(shape) + 1 + dim, batch)
        made = torch.randint(0, 100, shape).to(dtype)
        return made.transpose(0, -1).contiguous().transpose(0, -1) if flipped else made

    leaf = st.builds(
        tensor,
        st.lists(st.integers(1, 3), min_size=1, max_size=3),
        st.sampled_from(DTYPES),
        st.booleans(),
    )

    def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            st.lists(inner, min_size=1, max_size=2),
            st.lists(inner, min_size=1, max_size=2).map(tuple),
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2),
            st.builds(Pair, inner, inner),
            st.builds(Sample, inner, inner),
        )

    level = st.one_of(leaf, st.none(), st.sampled_from(["text", 3]))
    for _ in range(draw(st.integers(0, 3))):
        level = st.one_of(leaf, grow(level))
    return Case(draw(level), draw(st.integers(1, 5)), dim)


def check_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
    if not isinstance(expected, torch.Tensor):
        mine, theirs = parts_of(found), parts_of(expected)
        assert (mine is None) == (theirs is None)
        if theirs is None or mine is None:
            assert found == expected
        else:
            for one, other in zip(mine, theirs, strict=True):
                check_same(one, other)


@SLICES
@given(cases())
def test_scatter_then_gather_is_the_identity(case: Case) -> None:
    chunks = scatter(case.value, ["cpu"] * case.replicas, case.dim)
    assert 1 <= len(chunks) <= case.replicas
    check_same(gather(chunks, "cpu", case.dim), case.value)


@SLICES
@given(cases())
def test_no_replica_gets_more_than_one_sample_more_than_another(case: Case) -> None:
    chunks = scatter(case.value, ["cpu"] * case.replicas, case.dim)
    held = [{tensor.shape[case.dim] for tensor in tensors_of(chunk)} for chunk in chunks]
    if held[0]:
        assert all(len(sizes) == 1 for sizes in held)
        flat = [size for sizes in held for size in sizes]
        assert max(flat) - min(flat) <= 1
        assert sum(flat) == batch_size(case.value, case.dim)


@SLICES
@given(st.integers(0, 1000), st.integers(1, 20))
def test_equal_chunks_sum_and_differ_by_one_at_most(count: int, parts: int) -> None:
    sizes = chunk_sizes(count, parts)
    assert (len(sizes), sum(sizes)) == (parts, count)
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@SLICES
@given(
    st.integers(0, 1000),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(lambda found: sum(found) > 1e-3),
)
def test_weighted_chunks_sum_and_follow_the_weights(count: int, weights: list[float]) -> None:
    sizes = chunk_sizes(count, len(weights), weights)
    assert sum(sizes) == count
    for size, weight in zip(sizes, weights, strict=True):
        assert abs(size - count * weight / sum(weights)) < 1 + 1e-6


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, -1], [0, 0]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights must be 2 numbers"):
        scatter(torch.ones(4), TWO, weights=weights)


def test_weights_decide_who_gets_how_much() -> None:
    assert [len(chunk) for chunk in scatter(torch.arange(8), TWO, weights=[3, 1])] == [6, 2]
    assert [len(chunk) for chunk in scatter(torch.arange(8), TWO, weights=[1, 0])] == [8]


def test_gradients_lead_back_through_the_slices() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    first, second = scatter(x, TWO)
    assert (len(first), len(second)) == (3, 2)
    first.backward(torch.full_like(first, 2.0))
    assert x.grad is not None
    assert x.grad.tolist() == [[2.0] * 3] * 3 + [[0.0] * 3] * 2
    for dim in (0, 1):
        assert torch.autograd.gradcheck(lambda y, dim=dim: scatter(y, TWO, dim), (x,))
        assert torch.autograd.gradgradcheck(lambda y, dim=dim: scatter(y, TWO, dim), (x,))


def test_one_tensor_gives_a_tuple_and_containers_a_list() -> None:
    assert isinstance(scatter(torch.ones(2), TWO), tuple)
    assert isinstance(scatter([torch.ones(2)], TWO), list)


def test_other_objects_go_to_every_device_by_reference() -> None:
    thing, scalar = object(), torch.tensor(3.0)
    first, second = scatter((torch.arange(2), thing, scalar, [], {}, ()), TWO)
    assert first[1] is second[1] is thing
    assert first[2] is second[2] is scalar
    assert first[3:] == second[3:] == ([], {}, ())


def test_fewer_samples_than_devices_reach_as_many_devices() -> None:
    assert [chunk.tolist() for chunk in scatter(torch.arange(2), ["cpu"] * 4)] == [[0], [1]]
    assert [len(chunk) for chunk in scatter(torch.arange(0), ["cpu"] * 4)] == [0]


def test_keyword_arguments_have_as_many_parts_as_positional_ones() -> None:
    x = torch.arange(4)
    given_none, named = scatter_kwargs((), {"x": x}, TWO)
    assert given_none == ((), ())
    assert [each["x"].tolist() for each in named] == [[0, 1], [2, 3]]
    given_x, named = scatter_kwargs((x,), None, TWO)
    assert (len(given_x), named) == (2, ({}, {}))
    with pytest.raises(UsageError, match="their sizes differ, 4 in shape"):
        scatter_kwargs((x,), {"y": torch.arange(3)}, TWO)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_numpy_arrays_are_sliced_like_tensors(dim: int) -> None:
    array = np.arange(12).reshape(3, 4)
    chunks = scatter([array, torch.from_numpy(array), np.array(5)], TWO, dim)
    for chunk in chunks:
        assert isinstance(chunk[0], np.ndarray)
        assert np.array_equal(chunk[0], chunk[1].numpy())
        assert chunk[2] == 5
    joined = gather(pieces_without_scalars(chunks), "cpu", dim)
    assert np.array_equal(joined[0], array)


def pieces_without_scalars(chunks: list[list[Any]]) -> list[list[Any]]:
    return [chunk[:2] for chunk in chunks]


def test_a_packed_sequence_is_refused_wherever_it_is() -> None:
    packed = pack_sequence([torch.ones(2, 1), torch.ones(1, 1)])
    for value in (packed, [packed], {"deep": (torch.ones(2), packed)}):
        with pytest.raises(UsageError, match="PackedSequence cannot be scattered"):
            scatter(value, TWO)


@pytest.mark.parametrize("dim", [1, -2])
def test_a_dimension_that_is_not_there_is_named(dim: int) -> None:
    with pytest.raises(UsageError, match=rf"shape \(3,\) has no dimension {dim}"):
        scatter(torch.ones(3), TWO, dim)
