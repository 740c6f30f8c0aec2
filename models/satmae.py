"""SatMAE (Cong et al., NeurIPS 2022, arXiv:2207.08051): ViT-L/16 of fMoW-RGB, and `sentinel`, ViT-L/8 of fMoW-Sentinel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, ClipToDeviations, Divide, Mode, ZScore
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

IGNORE = ("mask_token", "decoder_", "head.")
# `CustomDatasetFromImages` of the official util/datasets.py.
FMOW = ZScore(
    (0.4182007312774658, 0.4214799106121063, 0.3991275727748871),
    (0.28774282336235046, 0.27541765570640564, 0.2764017581939697),
)
# `SentinelNormalize` of the same file, in digital numbers; B01, B09 and B10 are dropped.
BANDS = ("S2:B02", "S2:B03", "S2:B04", "S2:B05", "S2:B06", "S2:B07", "S2:B08", "S2:B8A", "S2:B11", "S2:B12")
SENTINEL = ClipToDeviations(
    deviations=2,
    eight_bit=True,
    mean=(
        *(1184.3824625, 1120.77120066, 1136.26026392, 1263.73947144, 1645.40315151),
        *(1846.87040806, 1762.59530783, 1972.62420416, 1732.16362238, 1247.91870117),
    ),
    std=(
        *(650.2842772, 712.12507725, 965.23119807, 948.9819932, 1108.06650639),
        *(1258.36394548, 1233.1492281, 1364.38688993, 1310.36996126, 1087.6020813),
    ),
)

GROUPS = {
    "title": "SatMAE ViT-L/8 fMoW-Sentinel",
    "inputs": (Mode("ms", BANDS, "dn", (SENTINEL,), 96, 8, shape="square", resize="last"),),
    "checkpoint": Checkpoint(
        "https",
        file="pretrain-vit-large-e199.pth",
        where="https://zenodo.org/record/7338613",
        url="https://zenodo.org/record/7338613/files/pretrain-vit-large-e199.pth",
        container=("model",),
        ignore=IGNORE,
    ),
    "strides": (8, 8, 8, 8),
    "parameters_millions": 303.1,
    "gmacs": "140.1 at 96 px",
    "pretraining_data": "fMoW-Sentinel (713,000 Sentinel-2 images, 10 bands)",
    "published_as": ("SatMAE [ViT-L, fMoW-Sentinel]",),
    "build": {
        "depth": 24,
        "heads": 16,
        "patch": 8,
        "grid": 12,
        "layer_scale": None,
        "groups": ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9)),
        "channel_width": 256,
    },
}

CARD = Card(
    name="satmae",
    title="SatMAE ViT-L/16 fMoW-RGB",
    inputs=(Mode("rgb", ("red", "green", "blue"), "uint8", (Divide(255), FMOW), 224, 16, shape="square"),),
    checkpoint=Checkpoint(
        "https",
        file="fmow_pretrain.pth",
        where="https://zenodo.org/record/7369797",
        url="https://zenodo.org/record/7369797/files/fmow_pretrain.pth",
        container=("model",),
        ignore=IGNORE,
    ),
    blocks=(7, 11, 15, 23),
    channels=(1024, 1024, 1024, 1024),
    strides=(16, 16, 16, 16),
    width=1024,
    licence="CC BY-NC 4.0 (code); as on the Zenodo record (weights)",
    paper="Cong et al., NeurIPS 2022, arXiv:2207.08051",
    parameters_millions=303.3,
    gmacs="61.6 at 224 px",
    pretraining_data="fMoW-RGB (364,000 very-high-resolution images)",
    build={"depth": 24, "heads": 16, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": False},
    variants={"large": {}, "sentinel": GROUPS},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official encoder with the position grid of the checkpoint (14; `sentinel`: 12)."""
    from models.common.tokens import expect_shape
    from models.networks.mae import SatMaeViT

    if card.variant != "sentinel":
        return SatMaeViT(card, expect_shape(card, shapes))
    from models.networks.satmae import GroupChannelViT

    shape = expect_shape(card, shapes, stem="patch_embed.0")
    stems = sorted(key for key in shapes if key.startswith("patch_embed.") and key.endswith(".proj.weight"))
    bands = tuple(shapes[key][1] for key in stems)
    expected = tuple(len(group) for group in card.build["groups"])
    if shapes and bands != expected:
        raise UserError(f"this checkpoint has groups of {bands} bands; {card.label} has {expected}")
    return GroupChannelViT(card, shape)
