"""Panopticon (Waldmann et al., 2025, arXiv:2503.10845): ViT-B/14 on any bands, joined by attention over channels.

TorchGeo's patch embedding, which passes the kit, in front of a plain ViT of ours: TorchGeo resizes the positions once, at
loading, by size and with antialias, where the authors resize them as DINO does.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Mode
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

WANTS = ("wavelength",)
# The authors' ids of radar channels, both orbits together; -5..-8 are ascending, -9..-12 descending, each VV, VH, HH, HV.
RADAR = {"S1:VV": -1.0, "S1:VH": -2.0}

CARD = Card(
    name="panopticon",
    title="Panopticon ViT-B/14",
    inputs=(
        Mode("spectral", (), "any", (), size=224, multiple=14, normalisation_source="dataset", wants=WANTS),
        Mode("sar", tuple(RADAR), "any", (), 224, 14, normalisation_source="dataset", sensor="sar", wants=WANTS),
    ),
    checkpoint=Checkpoint(
        "hub",
        file="panopticon_vitb14_teacher.pth",
        where="https://huggingface.co/lewaldm/panopticon",
        repo="lewaldm/panopticon",
        revision="c8c2bb9555819e8b2bcedf5b3b00e3bf531554e7",
        ignore=("mask_token",),
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(14, 14, 14, 14),
    width=768,
    licence="Apache-2.0 (code); not stated (weights)",
    paper="Waldmann et al., 2025, arXiv:2503.10845",
    parameters_millions=99.0,
    gmacs="51.8 at 224 px (10 bands)",
    pretraining_data="fMoW, fMoW-Sentinel, MMEarth, SpectralEarth, SatlasPretrain, from DINOv2",
    published_as=("Panopticon",),
    build={
        "depth": 12,
        "heads": 12,
        "patch": 14,
        "grid": 37,
        "layer_scale": 1.0,
        "norm_stages": False,
        "wavelengths": RADAR,
    },
    variants={"base": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official network; the side of the position grid is read off the checkpoint (37 in the official file)."""
    from models.common.tokens import VitShape, guess
    from models.networks.panopticon import Panopticon

    shape = VitShape(card.build["patch"], card.build["grid"])
    if shapes:
        from math import isqrt

        kernel = shapes.get("patch_embed.conv3d.conv3d.weight", ())
        if len(kernel) != 5 or "cls_token" not in shapes:
            raise UserError(
                f"this is no checkpoint of {card.label}: it has no patch_embed.conv3d or cls_token{guess(shapes)}"
            )
        depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in shapes)
        found, wanted = (shapes["cls_token"][-1], depth, kernel[3]), (card.width, card.build["depth"], shape.patch)
        if found != wanted:
            raise UserError(f"this checkpoint has width, blocks and patch size {found}; {card.label} has {wanted}")
        positions = shapes.get("pos_embed", (1, 1))[1] - 1
        if not positions or isqrt(positions) ** 2 != positions:
            raise UserError(
                f"this checkpoint stores {positions} positions, which is no square grid, as {card.label} wants"
            )
        shape = VitShape(shape.patch, isqrt(positions))
    return Panopticon(card, shape)
