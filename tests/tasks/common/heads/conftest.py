"""References in float64, from definitions: what the heads are made of."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor


def _weights(size: int, wanted: int) -> Tensor:
    """(wanted, size): bilinear weights, sampled at pixel centres, positions held at or above 0."""
    weights = torch.zeros(wanted, size, dtype=torch.float64)
    for index in range(wanted):
        position = max((index + 0.5) * size / wanted - 0.5, 0.0)
        low = min(int(position), size - 1)
        weights[index, low] += 1 - (position - low)
        weights[index, min(low + 1, size - 1)] += position - low
    return weights


def _bilinear(maps: Tensor, size: Sequence[int]) -> Tensor:
    rows, columns = (_weights(have, want) for have, want in zip(maps.shape[2:], size, strict=True))
    return torch.einsum("yh,bchw,xw->bcyx", rows, maps, columns)


def _convolved(maps: Tensor, weight: Tensor) -> Tensor:
    side = weight.shape[2]
    padded = torch.nn.functional.pad(maps, [side // 2] * 4)
    height, width = maps.shape[2:]
    return sum(
        torch.einsum("oi,bihw->bohw", weight[:, :, y, x], padded[:, :, y : y + height, x : x + width])
        for y in range(side)
        for x in range(side)
    )


def _normed(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = maps.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((maps - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    return (maps - mean) / (variance + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]


@pytest.fixture
def bilinear() -> Callable[[Tensor, Sequence[int]], Tensor]:
    """`bilinear(maps, size)`: resizing with align_corners False, as a matrix per axis."""
    return _bilinear


@pytest.fixture
def convolved() -> Callable[[Tensor, Tensor], Tensor]:
    """`convolved(maps, weight)`: zero-padded to the same size, as a sum over the taps, without bias."""
    return _convolved


@pytest.fixture
def normed() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`normed(maps, weight, bias)`: batch norm by the statistics of the batch."""
    return _normed
