"""Four maps brought to strides 4, 8, 16 and 32 without parameters: what a UPerNet head behind a plain ViT is given."""

from collections.abc import Sequence
from math import log2

from torch import Tensor
from torch.nn import functional

TARGETS = (4, 8, 16, 32)


def factors(strides: Sequence[float]) -> tuple[float, ...]:
    """How many times larger each of four maps becomes: stride / target, rounded to the nearest power of two.

    A ViT with patches of 16 or 14 pixels: 4, 2, 1, 0.5 (DEO, section 4; methods c1); patches of 8: 2, 1, 0.5, 0.25. Strides
    4, 8, 16, 32 (Swin, ResNet): 1 throughout; 8, 16, 32, 64 (SatDiFuser): 2 throughout. Raises `ValueError` for another
    number of strides than four.
    """
    return tuple(2.0 ** round(log2(stride / target)) for stride, target in zip(strides, TARGETS, strict=True))


def pyramid(stages: Sequence[Tensor], strides: Sequence[float], align_corners: bool) -> tuple[Tensor, ...]:
    """Maps (B, C_i, H_i, W_i) of these strides -> (B, C_i, f_i H_i, f_i W_i) with f = `factors(strides)`, bilinear.

    Sizes are rounded down, to at least 1. A map whose factor is 1 is returned as it is. DEO's evaluation resizes with
    `align_corners`, which then samples the corners of the map at the corners of the result; without it a factor of 0.5
    is the mean of 2 x 2 values. Raises `ValueError` unless there are four maps and four strides.
    """
    return tuple(
        resize(stage, [max(1, int(side * factor)) for side in stage.shape[2:]], align_corners)
        for stage, factor in zip(stages, factors(strides), strict=True)
    )


def resize(maps: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Maps (B, C, H, W) -> (B, C, *size), bilinear without antialias; the same tensor where nothing changes."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=align_corners)
