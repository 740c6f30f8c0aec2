"""DINOv3 (Simeoni et al., 2025, arXiv:2508.10104): ViT-B/16 of web images, and `sat`, ViT-L/16 of satellite images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode, ZScore
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

RGB = ("red", "green", "blue")
IMAGENET = ZScore((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SAT493M = ZScore((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
WHERE = (
    "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/ (after a request; not the transformers files)"
)

SAT = {
    "title": "DINOv3 ViT-L/16 SAT-493M",
    "inputs": (Mode("rgb", RGB, "uint8", (Divide(255), SAT493M), size=224, multiple=16),),
    "checkpoint": Checkpoint(
        "manual",
        file="dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth",
        where=WHERE,
        ignore=("mask_token", "local_cls_norm."),
    ),
    "blocks": (7, 11, 15, 23),
    "channels": (1024, 1024, 1024, 1024),
    "width": 1024,
    "parameters_millions": 303.2,
    "gmacs": "62.8 at 224 px",
    "pretraining_data": "SAT-493M (493 million satellite images, RGB, 0.6 m), distilled from ViT-7B",
    "published_as": ("DINOv3-LS",),
    "build": {"timm": "vit_large_patch16_dinov3_qkvb", "depth": 24, "norm_stages": True},
}

CARD = Card(
    name="dinov3",
    title="DINOv3 ViT-B/16",
    inputs=(Mode("rgb", RGB, "uint8", (Divide(255), IMAGENET), size=224, multiple=16),),
    checkpoint=Checkpoint(
        "manual", file="dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth", where=WHERE, ignore=("mask_token",)
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(16, 16, 16, 16),
    width=768,
    licence="DINOv3 License (code and weights; gated)",
    paper="Simeoni et al., 2025, arXiv:2508.10104",
    parameters_millions=85.7,
    gmacs="17.9 at 224 px",
    pretraining_data="LVD-1689M (curated web images), distilled from ViT-7B",
    published_as=("DINOv3-B",),
    build={"timm": "vit_base_patch16_dinov3_qkvb", "depth": 12, "norm_stages": True},
    variants={"base": {}, "sat": SAT},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official network; a checkpoint of the other variant, or of another model, is refused by its shapes."""
    from models.common.tokens import guess, read_shape
    from models.networks.dinov3 import DinoV3

    if shapes:
        if "storage_tokens" not in shapes:
            raise UserError(f"this is no checkpoint of {card.label}: it has no storage_tokens{guess(shapes)}")
        found = read_shape(card, shapes)
        if found.patch != 16:
            raise UserError(f"this checkpoint has patch size {found.patch}; {card.label} has 16")
    return DinoV3(card)
