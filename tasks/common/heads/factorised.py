"""UPerNet's logits with less work: the fusion of the pyramid is multiplied out before its maps are enlarged.

UPerNet enlarges three of four maps to the size of the first and passes all through one 3 x 3 convolution, which is 71 % of
the head's multiplications. Enlarging is linear and acts on each channel alone, the taps of the convolution act on
channels at one place, so the two may be exchanged: conv(up(x)) = sum over taps of shift(up(W_tap x)), with the 1 x 1
products at the maps' own sizes. Enlarging, shifting and zero padding together are one small matrix per tap and axis.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common.pyramid import resize


class Factorised(nn.Module):
    """mmsegmentation's `UPerHead`, held as `head`, computed this way on CPUs: the same logits and gradients, but for rounding.

    On other devices it is `head` itself, and narrow heads gain little (tests/benchmarks/upernet_factorised.py).
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head: Any = head

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), large to small -> logits (B, classes, H_0, W_0)."""
        return factorised(self.head, maps) if maps[0].device.type == "cpu" else self.head(maps)


def factorised(head: Any, maps: Sequence[Tensor]) -> Tensor:
    """What `head(maps)` gives, for a `UPerHead` with batch norm and align_corners False."""
    levels = [*(lateral(one) for lateral, one in zip(head.lateral_convs, maps, strict=False)), head.psp_forward(maps)]
    for index in range(len(levels) - 1, 0, -1):
        levels[index - 1] = levels[index - 1] + resize(levels[index], levels[index - 1].shape[2:])
    smooth = [*(conv(one) for conv, one in zip(head.fpn_convs, levels, strict=False)), levels[-1]]
    fusion, size = head.fpn_bottleneck, smooth[0].shape[2:]
    weights = fusion.conv.weight.split([one.shape[1] for one in smooth], dim=1)
    fused = functional.conv2d(smooth[0], weights[0], padding=1)
    for one, weight in zip(smooth[1:], weights[1:], strict=True):
        fused = fused + enlarged_convolution(one, weight, size)
    return head.cls_seg(fusion.activate(fusion.norm(fused)))


def enlarged_convolution(x: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """conv2d(bilinear(x, size), weight, padding=1): x (B, I, h, w), weight (O, I, 3, 3) -> (B, O, *size)."""
    outputs, inputs = weight.shape[:2]
    rows, columns = (shifted_enlargements(have, want, x) for have, want in zip(x.shape[2:], size, strict=True))
    by_tap = weight.permute(2, 0, 3, 1).reshape(9 * outputs, inputs, 1, 1)  # row of the kernel, output, column
    products = functional.conv2d(x, by_tap).unflatten(1, (3, outputs, 3))
    wide = torch.einsum("byokhw,kxw->byohx", products, columns)
    return torch.einsum("byohx,yzh->bozx", wide, rows)


def shifted_enlargements(size: int, wanted: int, like: Tensor) -> Tensor:
    """(3, wanted, size): bilinear enlargement of an axis, read at one place before, at, and after each; zero outside."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)[None, None]
    padded = functional.pad(resize(identity, (wanted, size))[0, 0], (0, 0, 1, 1))
    return torch.stack([padded[tap : tap + wanted] for tap in range(3)])
