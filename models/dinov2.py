"""DINOv2 (Oquab et al., TMLR 2024, arXiv:2304.07193): ViT-B/14 without registers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode, ZScore
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

IMAGENET = ZScore((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CARD = Card(
    name="dinov2",
    title="DINOv2 ViT-B/14",
    inputs=(Mode("rgb", ("red", "green", "blue"), "uint8", (Divide(255), IMAGENET), size=224, multiple=14),),
    checkpoint=Checkpoint(
        "https",
        file="dinov2_vitb14_pretrain.pth",
        where="https://github.com/facebookresearch/dinov2",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        ignore=("mask_token",),
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(14, 14, 14, 14),
    width=768,
    licence="Apache-2.0 (code and weights)",
    paper="Oquab et al., TMLR 2024, arXiv:2304.07193",
    parameters_millions=86.6,
    gmacs="23.2 at 224 px",
    pretraining_data="LVD-142M (curated web images), distilled from ViT-g",
    published_as=("DINOv2-B",),
    build={"depth": 12, "heads": 12, "patch": 14, "grid": 37, "layer_scale": 1.0, "norm_stages": True},
    variants={"base": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official network; the side of the position grid is read off the checkpoint (37 in the official file)."""
    from models.common.tokens import VitShape, read_shape
    from models.networks.vit import PlainViT

    shape = VitShape(card.build["patch"], card.build["grid"])
    if shapes:
        if "register_tokens" in shapes:
            raise UserError(
                "this checkpoint has register tokens; dinov2 is the model without (dinov2_vitb14_pretrain.pth)"
            )
        found = read_shape(card, shapes)
        if found.patch != shape.patch or not found.grid:
            raise UserError(
                f"this checkpoint has patch size {found.patch} and {found.grid}^2 positions; dinov2 has patch size 14 "
                "and a position table, so it is another model's"
            )
        shape = found
    return PlainViT(card, shape, stems={"patch_embed": 3})
