"""DEO (Wolf et al., CVPR 2026, arXiv:2602.19863): Swin-B, or ViT-B/8, with a stem for Sentinel-2 and one for RGB."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, DivideByMaximum, Mode, ZScore

if TYPE_CHECKING:
    from models.common.backbone import Backbone

# Red, green, blue come first: the three that pretraining mixed with fMoW-RGB. The other seven are digital numbers.
BANDS = ("S2:B04", "S2:B03", "S2:B02", "S2:B05", "S2:B06", "S2:B07", "S2:B08", "S2:B8A", "S2:B11", "S2:B12")
# `DataAugmentationDINOMS.normalize_hr` of the release: fMoW-RGB's statistics for three bands, Sentinel-2's for seven.
MEAN = (0.4182007312774658, 0.4214799106121063, 0.3991275727748871, 1263.73947144, 1645.40315151, 1846.87040806)
MEAN += (1762.59530783, 1972.62420416, 1732.16362238, 1247.91870117)
STD = (0.28774282336235046, 0.27541765570640564, 0.2764017581939697, 948.9819932, 1108.06650639, 1258.36394548)
STD += (1233.1492281, 1364.38688993, 1310.36996126, 1087.6020813)
RGB = ("red", "green", "blue")
HEADS = ("head_ms.", "cls_head.", "patch_head_late.", "patch_head_mid.")
STRIP = ("_orig_mod.", "module.", "backbone.", "feat_extr.")


def inputs(multiple: int) -> tuple[Mode, ...]:
    """Both modes, at the size of the global crops of pretraining, for sides divisible by `multiple`."""
    ms = (DivideByMaximum(BANDS[:3]), ZScore(MEAN, STD))
    rgb = (DivideByMaximum(RGB), ZScore(MEAN[:3], STD[:3]))
    return (Mode("ms", BANDS, "dn", ms, 224, multiple), Mode("rgb", RGB, "any", rgb, 224, multiple))


VIT = {
    "title": "DEO ViT-B/8",
    "inputs": inputs(multiple=8),
    "checkpoint": Checkpoint(
        "manual",
        file="deo_vit_base_8.pth",
        where="none is published; a checkpoint of the official training code, github.com/wolfilip/DEO-FM",
        container=("student",),
        strip=STRIP,
        ignore=HEADS,
    ),
    "blocks": (3, 5, 8, 11),
    "channels": (768, 768, 768, 768),
    "strides": (8, 8, 8, 8),
    "width": 768,
    "parameters_millions": 86.3,
    "gmacs": "78.4 at 224 px",
    "published_as": (),
    "build": {"depth": 12, "heads": 12, "patch": 8, "grid": 28, "layer_scale": None, "norm_stages": False},
}

CARD = Card(
    name="deo",
    title="DEO Swin-B",
    inputs=inputs(multiple=4),
    checkpoint=Checkpoint(
        "hub",
        file="filename-06c431372992ada3da5eb25362a4c6d477428b066c803e228e5de00272fad775.pth",
        where="https://huggingface.co/SolaireTheSun/DEO",
        repo="SolaireTheSun/DEO",
        revision="e3111b635eda09ae534973b444db58b412c87f4c",
        sha256="06c431372992ada3da5eb25362a4c6d477428b066c803e228e5de00272fad775",
        container=("student",),
        strip=STRIP,
        ignore=HEADS,
    ),
    blocks=(1, 2, 3, 4),
    channels=(128, 256, 512, 1024),
    strides=(4, 8, 16, 32),
    width=1024,
    licence="MIT (code); not stated (weights)",
    paper="Wolf et al., CVPR 2026, arXiv:2602.19863",
    parameters_millions=86.9,
    gmacs="25.5 at 224 px",
    pretraining_data="500,000 images of fMoW-Sentinel (10 bands), the RGB of 150,000 of them from fMoW-RGB",
    published_as=("DEO",),
    build={"depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 12, "stochastic_depth": 0.5},
    variants={"swin": {}, "vit": VIT},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """A Swin with the checkpoint's shape and window (random: Swin-B, 12), or a ViT with its patch size and grid (8, 28)."""
    if card.variant == "vit":
        from models.common.tokens import VitShape, read_shape
        from models.networks.vit import PlainViT

        shape = VitShape(card.build["patch"], card.build["grid"])
        if shapes:
            shape = read_shape(card, shapes, stem="patch_embed_ms")
            # The release evaluates patch 8, its training code makes patch 16: the card follows the file.
            card = replace(card, inputs=inputs(shape.patch), strides=(shape.patch,) * 4)
        return PlainViT(card, shape, stems={"patch_embed_ms": len(BANDS), "patch_embed_rgb": len(RGB)})
    from models.networks.deo import DeoSwin, read_card

    return DeoSwin(*(read_card(card, shapes) if shapes else (card, card.build["window"])))
