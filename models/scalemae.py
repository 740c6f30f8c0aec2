"""Scale-MAE (Reed et al., ICCV 2023, arXiv:2212.14532): ViT-L/16 of fMoW-RGB whose positions know the pixels' scale."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode, ZScore

if TYPE_CHECKING:
    from models.common.backbone import Backbone

# `config/fmow.yaml`, the statistics of pretraining; the authors' k-NN takes those of each data set instead.
IMAGENET = ZScore((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CARD = Card(
    name="scalemae",
    title="Scale-MAE ViT-L/16",
    inputs=(
        Mode(
            "rgb",
            ("red", "green", "blue"),
            "uint8",
            (Divide(255), IMAGENET),
            size=224,
            multiple=16,
            shape="square",
            wants=("gsd",),
        ),
    ),
    checkpoint=Checkpoint(
        "https",
        file="scalemae-vitlarge-800.pth",
        where="https://github.com/bair-climate-initiative/scale-mae",
        url="https://github.com/bair-climate-initiative/scale-mae/releases/download/base-800/scalemae-vitlarge-800.pth",
        container=("model",),
        ignore=("mask_token", "decoder_", "fpn.", "fcn", "pos_emb_projection.", "head."),
    ),
    blocks=(7, 11, 15, 23),
    channels=(1024, 1024, 1024, 1024),
    strides=(16, 16, 16, 16),
    width=1024,
    licence="CC BY-NC 4.0 (code and weights)",
    paper="Reed et al., ICCV 2023, arXiv:2212.14532",
    parameters_millions=303.3,
    gmacs="61.6 at 224 px",
    pretraining_data="fMoW-RGB (364,000 very-high-resolution images) at several scales",
    published_as=("Scale-MAE", "Scale-MAE [ViT-L, fMoW]"),
    build={"depth": 24, "heads": 16, "patch": 16, "grid": 14, "layer_scale": None},
    variants={"large": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official encoder, which computes its positions whatever table the checkpoint holds."""
    from models.common.tokens import expect_shape
    from models.networks.scalemae import ScaleMaeViT

    return ScaleMaeViT(card, expect_shape(card, shapes))
