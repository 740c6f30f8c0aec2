"""DOFA (Xiong et al., 2024, arXiv:2403.15356): ViT-B/16 whose stem is generated from wavelengths; 224 x 224 only.

TorchGeo's modules, which pass the kit; their forward pass gives no stages and is rewritten. The authors trained on eight
bits per band (statistics: `normalize_dataset.py`), and how reflectance came to them is not documented.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Mode
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

WANTS = ("wavelength",)
S1 = ("S1:VH", "S1:VV")

CARD = Card(
    name="dofa",
    title="DOFA ViT-B/16",
    inputs=(
        Mode("spectral", (), "any", (), 224, 16, normalisation_source="undocumented", shape="fixed", wants=WANTS),
        Mode("sar", S1, "any", (), 224, 16, "undocumented", sensor="sar", shape="fixed", wants=WANTS),
    ),
    # Weights from before September 2024 have the same keys and shapes and another kernel layout: the hash tells them
    # apart, and TorchGeo's copy is published with one.
    checkpoint=Checkpoint(
        "hub",
        file="dofa_base_patch16_224-a0275954.pth",
        where="https://huggingface.co/torchgeo/dofa, a copy of DOFA_ViT_base_e100.pth of huggingface.co/earthflow/DOFA",
        repo="torchgeo/dofa",
        revision="b8db318b64a90b9e085ec04ba8851233c5893666",
        sha256="a0275954",
        ignore=("mask_token", "norm.", "projector.", "head.", "fc_norm."),
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(16, 16, 16, 16),
    width=768,
    licence="MIT (code); not stated (weights)",
    paper="Xiong et al., 2024, arXiv:2403.15356",
    parameters_millions=111.3,
    gmacs="18.2 at 224 px (10 bands)",
    pretraining_data="SatlasPretrain, Five-Billion-Pixels, HySpecNet-11k (8 million images of five sensors)",
    published_as=("DOFA",),
    # The README's number for radar, 5.405 (its GHz as if they were micrometres), for batches that know no wavelength.
    build={"depth": 12, "heads": 12, "patch": 16, "grid": 14, "wavelengths": dict.fromkeys(S1, 5405.0)},
    variants={"base": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official network; a checkpoint of another width, depth, patch size or grid is refused by its shapes."""
    from models.common.tokens import guess
    from models.networks.dofa import Dofa

    if shapes:
        generator = shapes.get("patch_embed.weight_generator.fc_weight.weight")
        if generator is None or "cls_token" not in shapes:
            raise UserError(
                f"this is no checkpoint of {card.label}: it has no patch_embed.weight_generator or cls_token{guess(shapes)}"
            )
        depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in shapes)
        width, positions = shapes["cls_token"][-1], shapes.get("pos_embed", (1, 1))[1]
        found = (width, depth, generator[0] // width, positions)
        wanted = (card.width, card.build["depth"], card.build["patch"] ** 2, 1 + card.build["grid"] ** 2)
        if found != wanted:
            raise UserError(
                f"this checkpoint has width, blocks, pixels of a patch and positions {found}; {card.label} has {wanted}"
            )
    return Dofa(card)
