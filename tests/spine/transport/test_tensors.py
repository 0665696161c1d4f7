# SPDX-License-Identifier: BSD-3-Clause
"""Tensors travel as what they show."""

from typing import Any

import pytest

from teamster.spine.transport.pickled import pack, unpack

torch = pytest.importorskip("torch")


class Named(torch.Tensor):  # type: ignore[misc]
    pass


def travel(tensor: Any) -> tuple[int, Any]:
    parcel = pack(tensor)
    return parcel.nbytes, unpack(parcel.data, parcel.buffers)


def views() -> dict[str, Any]:
    big = torch.arange(400 * 500, dtype=torch.float32).reshape(400, 500)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    noted = big[3].clone()
    noted.note = "kept"
    complicated = torch.complex(big[:3], big[:3])
    return {
        "column": big[:, 3],
        "transposed block": big.T[5:50],
        "strided": big[::7, ::3],
        "expanded": torch.ones(1).expand(1_000),
        "channels last": images,
        "window of channels last": images[:, :, 3:20, 5:9],
        "parameter": torch.nn.Parameter(big[:, :5]),
        "of autograd": torch.nn.Parameter(big[:, :5]) * 2,
        "with an attribute": noted,
        "subclass": big.as_subclass(Named)[7],
        "empty": big[:0],
        "single": big[3, 4],
        "conjugated": complicated.conj(),
        "negative": complicated.conj().imag,
        "half": big[:5, ::3].bfloat16(),
        "truth": big[:, ::7] > 4,
    }


@pytest.mark.parametrize("name", views())
def test_a_view_travels_as_what_it_shows(name: str) -> None:
    tensor = views()[name]
    nbytes, received = travel(tensor)
    assert nbytes < tensor.numel() * tensor.element_size() + 1_500
    assert type(received) is type(tensor)
    assert (received.shape, received.dtype, received.requires_grad) == (
        tensor.shape,
        tensor.dtype,
        tensor.requires_grad,
    )
    assert torch.equal(received, tensor)
    assert received.is_leaf
    assert getattr(received, "note", None) == getattr(tensor, "note", None)


def test_the_layout_stays() -> None:
    tensors = views()
    for name in ("channels last", "window of channels last"):
        assert travel(tensors[name])[1].is_contiguous(memory_format=torch.channels_last)
    assert travel(tensors["column"])[1].is_contiguous()
