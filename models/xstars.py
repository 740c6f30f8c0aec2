"""X-STARS (Marsocci et al., 2024, arXiv:2405.09922): DINO-v1 ViTs of several sensors' RGB, and the paper's ResNet-50."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode, ZScore

if TYPE_CHECKING:
    from models.common.backbone import Backbone

RGB = ("red", "green", "blue")
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

BASE = {
    "title": "X-STARS ViT-B/16",
    "checkpoint": checkpoint("xstars_vit_base_16.pth", DRIVE),
    "blocks": (3, 5, 8, 11),
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
    "blocks": (3, 5, 8, 11),
    "channels": (192, 192, 192, 192),
    "width": 192,
    "parameters_millions": 5.5,
    "gmacs": "1.3 at 224 px",
    "published_as": ("X-STARS scratch ViT-T/16",),
    "build": {"depth": 12, "heads": 3, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": False},
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
    blocks=(7, 11, 15, 23),
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
    variants={"large": {}, "base": BASE, "tiny": TINY, "resnet50": RESNET50},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """DINO's ViT with the grid of positions of the checkpoint (14), or torchvision's ResNet-50."""
    if card.variant == "resnet50":
        from models.networks.resnet import ResNet50, require_resnet50

        require_resnet50(card, shapes)
        return ResNet50(card)
    from models.common.tokens import expect_shape
    from models.networks.vit import PlainViT

    return PlainViT(card, expect_shape(card, shapes), stems={"patch_embed": len(RGB)})
