"""CROMA (Fuller et al., NeurIPS 2023, arXiv:2311.00566): ViT-B/8 for Sentinel-2, half as deep for Sentinel-1, and joint.

TorchGeo's encoders, which pass the kit; the ALiBi table and the choice of encoders by checkpoint are ours.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, ClipToDeviations, Mode
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

# The release says 12 channels without cirrus; the order is that of SSL4EO-S12 (L2A), the pretraining data.
S2 = ("S2:B01", "S2:B02", "S2:B03", "S2:B04", "S2:B05", "S2:B06", "S2:B07", "S2:B08", "S2:B8A", "S2:B09")
S2 += ("S2:B11", "S2:B12")
# README, `normalize`: mean and std of whatever tensor it is handed. Here those of the data set, so that an image has the
# same features in every batch. The README takes the way through eight bits first. The unit cancels out.
STEPS = (ClipToDeviations(deviations=2.0, eight_bit=True),)
MS = Mode("ms", S2, "any", STEPS, size=120, multiple=8, shape="square")
SAR = Mode("sar", ("S1:VV", "S1:VH"), "any", STEPS, size=120, multiple=8, shape="square", sensor="sar")
JOINT = replace(MS, name="joint", beside=(SAR,))
PARTS = {"ms": ("s2_encoder", "s2_GAP_FFN"), "sar": ("s1_encoder", "s1_GAP_FFN"), "joint": ("joint_encoder",)}

CARD = Card(
    name="croma",
    title="CROMA ViT-B/8",
    inputs=(MS, SAR, JOINT),
    checkpoint=Checkpoint(
        "hub",
        file="CROMA_base.pt",
        where="https://huggingface.co/antofuller/CROMA",
        repo="antofuller/CROMA",
        revision="main",
        parts=tuple(part for parts in PARTS.values() for part in parts),
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(8, 8, 8, 8),
    width=768,
    licence="MIT (code); not stated (weights)",
    paper="Fuller et al., NeurIPS 2023, arXiv:2311.00566",
    parameters_millions=194.4,
    gmacs="20.2 at 120 px (ms)",
    pretraining_data="SSL4EO-S12 (1 million pairs of Sentinel-1 and Sentinel-2 L2A)",
    published_as=("CROMA",),
    build={"depth": 12, "heads": 16},
    variants={"base": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The encoders that the checkpoint holds (random: all three); the card keeps the modes that they allow."""
    from models.networks.croma import Croma

    if shapes:
        found = {mode for mode, (encoder, *_) in PARTS.items() if any(key.startswith(encoder) for key in shapes)}
        if not found & {"ms", "sar"}:
            raise UserError("this is no checkpoint of croma: it has no s1_encoder and no s2_encoder")
        if "joint" in found and len(found) < 3:
            raise UserError("this checkpoint has a joint_encoder without both of s1_encoder and s2_encoder")
        for encoder in ("s2_encoder", "s1_encoder"):
            weight = shapes.get(f"{encoder}.linear_input.weight")
            if weight is None and any(key.startswith(encoder) for key in shapes):
                raise UserError(f"this is no checkpoint of croma: {encoder} has no linear_input.weight")
            if weight and weight[0] != card.width:
                raise UserError(f"this checkpoint has width {weight[0]} (CROMA large has 1024); croma has {card.width}")
        card = replace(card, inputs=tuple(mode for mode in card.inputs if mode.name in found))
    return Croma(card)
