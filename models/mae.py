"""MAE (He et al., CVPR 2022, arXiv:2111.06377): ViT-L/16 pretrained on ImageNet-1k."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode, ZScore

if TYPE_CHECKING:
    from models.common.backbone import Backbone

IMAGENET = ZScore((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CARD = Card(
    name="mae",
    title="MAE ViT-L/16 ImageNet",
    inputs=(Mode("rgb", ("red", "green", "blue"), "uint8", (Divide(255), IMAGENET), 224, 16, shape="square"),),
    checkpoint=Checkpoint(
        "https",
        file="mae_pretrain_vit_large.pth",
        where="https://github.com/facebookresearch/mae",
        url="https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth",
        container=("model",),
        ignore=("mask_token", "decoder_", "head."),
    ),
    blocks=(7, 11, 15, 23),
    channels=(1024, 1024, 1024, 1024),
    strides=(16, 16, 16, 16),
    width=1024,
    licence="CC BY-NC 4.0 (code and weights)",
    paper="He et al., CVPR 2022, arXiv:2111.06377",
    parameters_millions=303.3,
    gmacs="61.6 at 224 px",
    pretraining_data="ImageNet-1k (1.28 million web images), without labels",
    published_as=("MAE [ViT-L, ImageNet]",),
    build={"depth": 24, "heads": 16, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": False},
    variants={"large": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official encoder; the side of the position grid is read off the checkpoint (14 in the official file)."""
    from models.common.tokens import expect_shape
    from models.networks.mae import MaeViT

    return MaeViT(card, expect_shape(card, shapes))
