"""Copernicus-FM (Wang et al., ICCV 2025, arXiv:2503.11849): ViT-B/16 whose stem is generated from wavelengths.

TorchGeo's modules, which pass the kit; their forward pass gives no stages and is rewritten. Metadata are told where the
batch has them: in the authors' code one NaN switches a whole batch to the learned token, here its own image alone.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Mode
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone

WANTS = ("wavelength", "bandwidth", "gsd", "location", "time", "area")
# Copernicus-Bench z-scores every data set with its own statistics.
SPECTRAL = Mode("spectral", (), "any", (), 224, 16, normalisation_source="dataset", shape="square", wants=WANTS)
S1 = ("S1:VV", "S1:VH")

CARD = Card(
    name="copernicus_fm",
    title="Copernicus-FM ViT-B/16",
    inputs=(
        SPECTRAL,
        Mode("sar", S1, "any", (), 224, 16, normalisation_source="dataset", sensor="sar", shape="square", wants=WANTS),
    ),
    checkpoint=Checkpoint(
        "hub",
        file="CopernicusFM_ViT_base_varlang_e100.pth",
        where="https://huggingface.co/wangyi111/Copernicus-FM",
        repo="wangyi111/Copernicus-FM",
        revision="main",
        container=("model",),
        ignore=(
            "decoder_",
            "mask_token",
            "coord_fc_decoder.",
            "scale_fc_decoder.",
            "time_fc_decoder.",
            "coord_token_dec",
            "scale_token_dec",
            "time_token_dec",
            "student_proj.",
            "teacher.",
            "head.",
            "patch_embed_variable.",  # the stem for variables that are no spectral bands: wants language embeddings
        ),
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(16, 16, 16, 16),
    width=768,
    licence="Apache-2.0, parts MIT and CC BY-NC 4.0 (code); CC BY 4.0 (weights)",
    paper="Wang et al., ICCV 2025, arXiv:2503.11849",
    parameters_millions=113.1,
    gmacs="18.2 at 224 px (10 bands)",
    pretraining_data="Copernicus-Pretrain (18.7 million images of Sentinel-1, -2, -3, -5P and DEM)",
    published_as=("Copernicus-FM",),
    # Radar as the authors declare it, for batches that do not know a wavelength of it.
    build={
        "depth": 12,
        "heads": 12,
        "patch": 16,
        "grid": 14,
        "wavelengths": dict.fromkeys(S1, 5e7),
        "bandwidths": dict.fromkeys(S1, 1e9),
    },
    variants={"base": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The official network; width, depth, patch size and grid are read off the checkpoint and must be the card's."""
    from models.common.tokens import guess
    from models.networks.copernicus_fm import CopernicusFM

    if shapes:
        generator = shapes.get("patch_embed_spectral.weight_generator.fc_weight.weight")
        if generator is None or "coord_token" not in shapes or "norm.weight" not in shapes:
            raise UserError(
                f"this is no checkpoint of {card.label}: it has no patch_embed_spectral, coord_token or norm{guess(shapes)}"
            )
        width = shapes["coord_token"][-1]
        depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in shapes)
        if (width, depth, generator[0]) != (card.width, card.build["depth"], card.width * card.build["patch"] ** 2):
            raise UserError(
                f"this checkpoint has width {width}, {depth} blocks and kernels of {generator[0] // width} pixels; "
                f"{card.label} has {card.width}, {card.build['depth']} and {card.build['patch'] ** 2}"
            )
    return CopernicusFM(card)
