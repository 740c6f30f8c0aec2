"""The heads that SatDiFuser's authors put behind their fuser, for kits that hold their logits."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

POOLS = (1, 2, 3, 6)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Convolution with bias, batch norm and ReLU (the authors' norm is the synchronised one, the same in eval mode)."""
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()]


class Classifier(nn.Module):
    """The mean of a map and a linear layer, under the names of the authors' `decoder_net`."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.decoder_head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "Classifier":
        """The network whose entries have these shapes."""
        classes, width = shapes["decoder_head.2.weight"]
        return cls(width, classes)

    def forward(self, vector: Tensor) -> Tensor:
        """Pooled vector (B, width), which is a map of one pixel -> logits (B, classes)."""
        return self.decoder_head(vector[:, :, None, None])


class UPerNet(nn.Module):
    """UPerNet over four maps of one width, under the names of the authors' `decoder_net`; dropout is off."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), *_conv(width, channels, 1)) for size in POOLS
        )
        self.bottleneck = nn.Sequential(*_conv(width + len(POOLS) * channels, channels, 3))
        self.lateral_convs = nn.ModuleList(nn.Sequential(*_conv(width, channels, 1)) for _ in range(3))
        self.fpn_convs = nn.ModuleList(nn.Sequential(*_conv(channels, channels, 3)) for _ in range(3))
        self.fpn_bottleneck = nn.Sequential(*_conv(4 * channels, channels, 3))
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "UPerNet":
        """The network whose entries have these shapes."""
        classes, channels = shapes["conv_seg.weight"][:2]
        return cls(shapes["lateral_convs.0.0.weight"][1], channels, classes)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Four maps (B, width, H_i, W_i), large to small -> logits (B, classes, *size)."""
        smallest = maps[-1]
        pooled = [_resize(module(smallest), smallest.shape[2:]) for module in self.psp_modules]
        levels = [conv(one) for conv, one in zip(self.lateral_convs, maps[:-1], strict=True)]
        levels.append(self.bottleneck(torch.cat([smallest, *pooled], dim=1)))
        for index in (2, 1, 0):
            levels[index] = levels[index] + _resize(levels[index + 1], levels[index].shape[2:])
        levels = [*(conv(one) for conv, one in zip(self.fpn_convs, levels[:-1], strict=True)), levels[-1]]
        joined = torch.cat([_resize(one, levels[0].shape[2:]) for one in levels], dim=1)
        return _resize(self.conv_seg(self.fpn_bottleneck(joined)), size)
