"""TerraFM (Danish et al., 2025, arXiv:2506.06281): ViT-B/16 with a stem each for Sentinel-2 L1C, L2A and Sentinel-1.

The release chooses the stem by the number of channels and never takes the L2A one: neither do we, on L2A data too.
DEO's evaluation fed RGB as the second to fourth of twelve bands, zeros elsewhere: `missing_bands = zero`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Mode
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

# Neither order nor statistics are published. This is the order of Major-TOM Core-S2L2A, the pretraining data, without B10.
S2 = ("S2:B01", "S2:B02", "S2:B03", "S2:B04", "S2:B05", "S2:B06", "S2:B07", "S2:B08", "S2:B8A", "S2:B09")
S2 += ("S2:B11", "S2:B12")

CARD = Card(
    name="terrafm",
    title="TerraFM ViT-B/16",
    inputs=(
        Mode("ms", S2, "any", (), size=224, multiple=16, normalisation_source="undocumented"),
        Mode("sar", ("S1:VV", "S1:VH"), "any", (), 224, 16, normalisation_source="undocumented", sensor="sar"),
    ),
    checkpoint=Checkpoint(
        "hub",
        file="TerraFM-B.pth",
        where="https://huggingface.co/MBZUAI/TerraFM",
        repo="MBZUAI/TerraFM",
        revision="main",
        strip=("module.",),
        ignore=("head.",),
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(16, 16, 16, 16),
    width=768,
    licence="not stated (code and weights); said elsewhere to be MIT or Apache-2.0",
    paper="Danish et al., 2025, arXiv:2506.06281",
    parameters_millions=113.0,
    gmacs="21.3 at 224 px (ms)",
    pretraining_data="Major-TOM Core (18.7 million global tiles of Sentinel-1 RTC and Sentinel-2 L1C, L2A)",
    published_as=("TerraFM",),
    build={"depth": 12, "heads": 12, "patch": 16, "grid": 14, "layer_scale": None, "norm_stages": True},
    variants={"base": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official network; a checkpoint of another width, depth or patch size is refused by its shapes."""
    from models.common.tokens import VitShape, guess
    from models.networks.terrafm import TerraFM

    if shapes:
        stem = shapes.get("patch_embed.conv2d_s2_l1c.weight", ())
        if len(stem) != 4 or "cls_token" not in shapes:
            raise UserError(
                f"this is no checkpoint of terrafm: it has no patch_embed.conv2d_s2_l1c or cls_token{guess(shapes)}"
            )
        depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in shapes)
        found = (shapes["cls_token"][-1], depth, stem[2])
        if found != (card.width, card.build["depth"], card.build["patch"]):
            raise UserError(
                f"this checkpoint has width {found[0]}, {found[1]} blocks and patch size {found[2]}; {card.label} has "
                f"{card.width}, {card.build['depth']} and {card.build['patch']}"
            )
    return TerraFM(card, VitShape(card.build["patch"], card.build["grid"]))
