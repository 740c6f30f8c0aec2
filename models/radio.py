"""RADIOv2.5 (Heinrich et al., CVPR 2025, arXiv:2412.07679): ViT-B/16 distilled from four foundation models at once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode

if TYPE_CHECKING:
    from models.common.backbone import Backbone

CARD = Card(
    name="radio",
    title="RADIOv2.5 ViT-B/16",
    inputs=(
        # The network itself applies CLIP's mean and std. The authors train at several sizes and prefer 768; at 224 it
        # teaches DEO and costs what other models cost here.
        Mode("rgb", ("red", "green", "blue"), "uint8", (Divide(255),), size=224, multiple=16),
    ),
    checkpoint=Checkpoint(
        "hub",
        file="radio-v2.5-b_half.pth.tar",
        where="https://huggingface.co/nvidia/RADIO",
        repo="nvidia/RADIO",
        revision="main",
        container=("state_dict_ema", "state_dict"),
        strip=("module.", "base_model.", "radio_model.model.", "radio_model."),
        ignore=(
            "_heads.",
            "_feature_projections.",
            "_feature_normalizer.",
            "_intermediate_feature_normalizer.",
            "summary_idxs",
        ),
    ),
    blocks=(3, 5, 8, 11),
    channels=(768, 768, 768, 768),
    strides=(16, 16, 16, 16),
    width=2304,
    licence="NVIDIA Source Code License for RADIO (code and weights; non-commercial)",
    paper="Heinrich et al., CVPR 2025, arXiv:2412.07679",
    parameters_millions=98.2,
    gmacs="18.2 at 224 px",
    pretraining_data="DataComp-1B (web images), distilled from DFN CLIP, SigLIP, DINOv2 and SAM",
    build={"width": 768, "depth": 12, "heads": 12, "patch": 16, "grid": 128, "tokens": 8, "summary": (0, 1, 2)},
    variants={"base": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The backbone of the official file without its adaptors; the side of the position grid is read off the file."""
    from models.networks.radio import Radio, read_grid

    return Radio(card, read_grid(card, shapes) if shapes else card.build["grid"])
