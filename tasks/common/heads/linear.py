"""One linear layer per pixel, on the maps as the backbone gives them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.common.pyramid import resize


class PixelLinear(nn.Module):
    """Maps of one image size, resized to the largest of them and concatenated; batch norm; 1 x 1 convolution.

    In the manner of DINOv2's linear segmentation head (`dinov2/eval/segmentation/models/decode_heads/linear_head.py`):
    the batch norm comes after resizing and concatenation and before dropout and classifier, so that maps of different
    scale weigh alike; nothing else is learned. Bilinear, align_corners False. The classifier is drawn normal 0.01, its
    bias zero. (DINOv2 has no dropout here.)
    """

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(sum(channels))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(sum(channels), num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, channels[i], H_i, W_i) -> logits (B, classes, H, W) at the largest map's size."""
        size = max((tuple(one.shape[2:]) for one in maps), key=lambda sides: sides[0] * sides[1])
        joined = torch.cat([resize(one, size) for one in maps], dim=1)
        return self.classifier(self.dropout(self.norm(joined)))
