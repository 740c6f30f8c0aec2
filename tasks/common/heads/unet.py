"""The UNet decoder that BTC puts behind ViTs for change detection (`models/modules/opencd_unet.py`, from MTP).

For X-STARS' ResNet-50 ("ResUNet decoder with frozen encoder", no widths given) the same decoder serves: its maps at strides
4, 8 and 16 are then true skips.
"""

from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common.pyramid import resize

WIDTHS = (512, 256, 128, 64)


class Block(nn.Module):
    """A map, doubled if `doubles` (nearest), beside its skip, then twice 3 x 3 convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, skip: int, outputs: int, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.convolutions = nn.Sequential(
            nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Maps (B, inputs, H, W) and (B, skip, h, w), which is resized -> (B, outputs, 2H, 2W), H x W if it does not double."""
        if self.doubles:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        if skip is not None:
            x = torch.cat([x, resize(skip, x.shape[2:])], dim=1)
        return self.convolutions(x)


class UNet(nn.Module):
    """Four blocks of 512, 256, 128 and 64 channels from the last map upwards, channel dropout, 1 x 1 classifier.

    The skips of the first three blocks are the third, second and first map, resized bilinearly to the block's size; the
    fourth block has none. Of a ViT all four maps have one size, so that its skips at strides 8, 4 and 2 are enlarged 2, 4
    and 8 times: official BTC does just that (MTP's learned pyramid is commented out there). All convolutions are drawn
    normal 0.01, the bias zero.

    Two differences, of which the first changes no prediction. Behind strides other than 16 BTC enlarges the last block's
    map twofold before the classifier; here logits stay at stride 2 behind Swin or ResNet, to be resized by the
    caller, since a 1 x 1 convolution and channel dropout commute with bilinear resizing. And a block does not double a
    map that has the image's size already (patches of 8 pixels: the fourth block), where BTC would go beyond it.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[float], num_classes: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        doublings = round(log2(strides[-1]))
        inputs, skips = (channels[-1], *WIDTHS[:-1]), (*reversed(channels[:-1]), 0)
        self.blocks = nn.ModuleList(
            Block(*widths, doubles=number < doublings)
            for number, widths in enumerate(zip(inputs, skips, WIDTHS, strict=True))
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(WIDTHS[-1], num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (B, channels[i], H_i, W_i), shallow to deep -> logits (B, classes, 16 H_3, 16 W_3) or the image's size."""
        x = maps[-1]
        for block, skip in zip(self.blocks, (*reversed(maps[:-1]), None), strict=True):
            x = block(x, skip)
        return self.classifier(self.dropout(x))
