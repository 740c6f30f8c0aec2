"""UPerNet (Xiao et al., ECCV 2018, arXiv:1807.10221) as mmsegmentation has it, and its auxiliary FCN head."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from tasks.common.heads.mmseg import building, decode_heads

HIDDEN = 512
# With 512 channels an image of 224 pixels costs 41.6 G multiplications in the head, more than twice those of a ViT-B, and
# 50 epochs of 3000 images take two cores days. With 64 the same network takes a fiftieth of that: for CPUs, and a
# protocol of its own, since its scores cannot be set beside those of the wide head.
LITE_HIDDEN = 64
POOL_SCALES = (1, 2, 3, 6)


def decode_head(channels: Sequence[int], num_classes: int, hidden: int = HIDDEN, dropout: float = 0.1) -> nn.Module:
    """mmsegmentation's `UPerHead`: four maps (B, channels[i], H_i, W_i), large to small -> logits (B, classes, H_0, W_0).

    Pool scales 1, 2, 3, 6 on the last map, bilinear resizing with align_corners False, batch norm (the synchronised one
    of mmsegmentation's configurations is the same on one device), channel dropout before the 1 x 1 classifier. Drawn
    from torch's global generator as mmsegmentation does: convolutions normal with fan-out, the classifier normal 0.01.
    DEO's and BTC's copies of the head (from the transformers library) have no dropout.
    """
    return _build(
        decode_heads().UPerHead,
        in_channels=list(channels),
        in_index=list(range(len(channels))),
        pool_scales=POOL_SCALES,
        channels=hidden,
        num_classes=num_classes,
        dropout_ratio=dropout,
    )


def auxiliary_head(channels: Sequence[int], num_classes: int, hidden: int = HIDDEN, dropout: float = 0.1) -> nn.Module:
    """mmsegmentation's `FCNHead` on the third of the maps: -> logits (B, classes, H_2, W_2), for training alone.

    One 3 x 3 convolution to half of `hidden` channels and a 1 x 1 classifier, as in its `upernet_r50.py`, which weighs the
    loss of these logits by 0.4.
    """
    return _build(
        decode_heads().FCNHead,
        in_channels=channels[2],
        in_index=2,
        channels=hidden // 2,
        num_convs=1,
        concat_input=False,
        num_classes=num_classes,
        dropout_ratio=dropout,
    )


def _build(kind: Any, **options: Any) -> nn.Module:
    with building():
        head = kind(norm_cfg={"type": "BN"}, align_corners=False, **options)
    # What `init_weights` would do; that would also draw some convolutions a second time and log every parameter.
    nn.init.normal_(head.conv_seg.weight, std=0.01)
    nn.init.zeros_(head.conv_seg.bias)
    return head
