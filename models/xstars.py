"""X-STARS (Marsocci et al., 2024, arXiv:2405.09922): DINO-v1 ViTs of several sensors' RGB, and the paper's ResNet-50."""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode, ZScore
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

RGB = ("red", "green", "blue")
STAGE_BLOCKS = {12: (3, 5, 8, 11), 24: (7, 11, 15, 23)}  # by depth
# The statistics of the README's command for Sentinel-2 with Landsat-8. Which ones the paper's evaluation used is not
# documented (the code has four more sets), so that the data set's own stand in.
PRETRAINING = (
    Divide(255),
    ZScore((0.15590523, 0.15850738, 0.10111853), (0.14238988, 0.11567883, 0.0910672)),
)


def inputs(multiple: int) -> tuple[Mode, ...]:
    return (Mode("rgb", RGB, "uint8", PRETRAINING, 224, multiple, normalisation_source="undocumented"),)


def checkpoint(file: str, where: str) -> Checkpoint:
    """A DINO-v1 training checkpoint: the teacher, which DINO evaluates by default, or a student where there is none."""
    return Checkpoint(
        "manual",
        file=file,
        where=where,
        container=("teacher", "student"),
        strip=("module.", "backbone."),
        ignore=("head.", "fc."),
    )


DRIVE = (
    "Google Drive folder 1NSZqUdytaDq6yFC188dG8K27YKHgtFGU, linked in github.com/VMarsocci/X-STARS "
    "(which does not name its files)"
)

UNPUBLISHED = "none is published; `python -m harness pretrain xstars` writes one"

BASE = {
    "title": "X-STARS ViT-B/16",
    "checkpoint": checkpoint("xstars_vit_base_16.pth", DRIVE),
    "blocks": STAGE_BLOCKS[12],
    "channels": (768, 768, 768, 768),
    "width": 768,
    "parameters_millions": 85.8,
    "gmacs": "17.6 at 224 px",
    "published_as": ("X-STARS scratch ViT-B/16",),
    "build": {"depth": 12, "heads": 12, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": False},
}
TINY = {
    "title": "X-STARS ViT-T/16",
    "checkpoint": checkpoint("xstars_vit_tiny_16.pth", DRIVE),
    "blocks": STAGE_BLOCKS[12],
    "channels": (192, 192, 192, 192),
    "width": 192,
    "parameters_millions": 5.5,
    "gmacs": "1.3 at 224 px",
    "published_as": ("X-STARS scratch ViT-T/16",),
    "build": {"depth": 12, "heads": 3, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": False},
}
SMALL = {
    "title": "X-STARS ViT-S/16",
    "checkpoint": checkpoint("xstars_vit_small_16.pth", UNPUBLISHED),
    "blocks": STAGE_BLOCKS[12],
    "channels": (384, 384, 384, 384),
    "width": 384,
    "parameters_millions": 21.7,
    "gmacs": "4.6 at 224 px",
    "published_as": (),
    "build": {"depth": 12, "heads": 6, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": False},
}
# Width, depth, patch and grid are the checkpoint's; without one they are what `pretrain xstars --preset cpu` trains.
FREE = {
    "title": "X-STARS ViT of any size",
    "inputs": inputs(multiple=8),
    "checkpoint": checkpoint("xstars_vit.pth", UNPUBLISHED),
    "blocks": (0, 1, 2, 3),
    "channels": (128, 128, 128, 128),
    "strides": (8, 8, 8, 8),
    "width": 128,
    "parameters_millions": 0.8,
    "gmacs": "0.1 at 64 px (width 128, 4 blocks, patch 8)",
    "published_as": (),
    "build": {"depth": 4, "heads": 2, "patch": 8, "grid": 8, "layer_scale": None, "norm_stages": False},
}
RESNET50 = {
    "title": "X-STARS ResNet-50",
    "inputs": inputs(multiple=1),
    "checkpoint": checkpoint(
        "xstars_resnet50.pth",
        "none is published, nor code for it; a DINO-v1 checkpoint of torchvision's ResNet-50, trained as in the paper",
    ),
    "blocks": (1, 2, 3, 4),
    "channels": (256, 512, 1024, 2048),
    "strides": (4, 8, 16, 32),
    "width": 2048,
    "parameters_millions": 23.5,
    "gmacs": "4.1 at 224 px",
    "published_as": ("X-STARS [ResNet50, MSC-France S2-LS]",),
    "build": {},
}

CARD = Card(
    name="xstars",
    title="X-STARS ViT-L/16",
    inputs=inputs(multiple=16),
    checkpoint=checkpoint("xstars_vit_large_16.pth", DRIVE),
    blocks=STAGE_BLOCKS[24],
    channels=(1024, 1024, 1024, 1024),
    strides=(16, 16, 16, 16),
    width=1024,
    licence="not stated (code: no licence file, the ViT under Apache-2.0 as DINO's; weights: none stated)",
    paper="Marsocci and Audebert, 2024, arXiv:2405.09922",
    parameters_millions=303.3,
    gmacs="61.6 at 224 px",
    pretraining_data="MSC-France: 4,496 scenes in Sentinel-2 (10 m) and Landsat-8 (30 m) RGB, two of its three sensors",
    published_as=("X-STARS [ViT-L, MSC-France S2-LS]", "X-STARS scratch ViT-L/16"),
    build={"depth": 24, "heads": 16, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": False},
    variants={"large": {}, "base": BASE, "small": SMALL, "tiny": TINY, "resnet50": RESNET50, "vit": FREE},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """DINO's ViT with the grid of positions of the checkpoint (14), or torchvision's ResNet-50.

    The variant `vit` takes its size from the checkpoint, and a head for every 64 channels, as all ViTs here have.
    """
    if card.variant == "resnet50":
        from models.networks.resnet import ResNet50, require_resnet50

        require_resnet50(card, shapes)
        return ResNet50(card)
    from models.common.tokens import expect_shape
    from models.networks.vit import PlainViT

    if card.variant == "vit" and shapes:
        card = read_size(card, shapes)
    return PlainViT(card, expect_shape(card, shapes), stems={"patch_embed": len(RGB)})


def sized(card: Card, width: int, depth: int, patch: int, grid: int) -> Card:
    """The card of a ViT of another size: heads of 64 channels; of unusual depths, a stage ends each quarter."""
    return replace(
        card,
        inputs=(replace(card.inputs[0], size=patch * grid, multiple=patch),),
        blocks=STAGE_BLOCKS.get(depth) or tuple(depth * part // 4 - 1 for part in (1, 2, 3, 4)),
        channels=(width,) * 4,
        strides=(patch,) * 4,
        width=width,
        build={**card.build, "depth": depth, "heads": width // 64, "patch": patch, "grid": grid},
    )


def read_size(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> Card:
    """The card of the ViT that a checkpoint holds; what is no ViT is left for `expect_shape` to refuse.

    Raises `UserError` for a width that has no whole number of heads, and for fewer blocks than stages.
    """
    weight, positions = shapes.get("patch_embed.proj.weight", ()), shapes.get("pos_embed", ())
    if len(weight) != 4 or len(positions) != 3:
        return card
    width, depth = weight[0], sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in shapes)
    if width % 64 or depth < 4:
        raise UserError(
            f"this checkpoint has width {width} and {depth} blocks; {card.label} takes widths divisible by 64 (a head for "
            "every 64 channels) and at least 4 blocks"
        )
    return sized(card, width, depth, weight[2], isqrt(positions[1] - 1))
