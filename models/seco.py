"""SeCo (Manas et al., ICCV 2021, arXiv:2103.16607): ResNet-50 of seasonal contrast on a million Sentinel-2 images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode

if TYPE_CHECKING:
    from models.common.backbone import Backbone

CARD = Card(
    name="seco",
    title="SeCo ResNet-50 SeCo-1M",
    inputs=(
        # Pretraining normalised eight-bit images with ImageNet's statistics, but no downstream task of the authors does:
        # `main_eurosat.py`, `main_bigearthnet.py` and `main_oscd.py` divide by 255 and no more, and so does this card.
        Mode("rgb", ("red", "green", "blue"), "uint8", (Divide(255),), size=224, multiple=1),
    ),
    checkpoint=Checkpoint(
        "https",
        file="seco_resnet50_1m.ckpt",
        where="https://zenodo.org/record/4728033",
        url="https://zenodo.org/record/4728033/files/seco_resnet50_1m.ckpt",
        container=("state_dict",),
        # The momentum encoder has the same shapes as the encoder: `encoder_q.` stays in the names.
        ignore=("encoder_k.", "heads_q.", "heads_k.", "queue"),
    ),
    blocks=(1, 2, 3, 4),
    channels=(256, 512, 1024, 2048),
    strides=(4, 8, 16, 32),
    width=2048,
    licence="Apache-2.0 (code); see the Zenodo record 4728033 (weights)",
    paper="Manas et al., ICCV 2021, arXiv:2103.16607",
    parameters_millions=23.5,
    gmacs="4.1 at 224 px",
    pretraining_data="SeCo-1M (200,000 places, five seasons each, of Sentinel-2; RGB used), from ImageNet weights",
    published_as=("SeCo [ResNet50, SeCo dataset]",),
    variants={"resnet50": {}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The query encoder of the official training checkpoint."""
    from models.networks.seco import Seco, expect_encoder

    if shapes:
        expect_encoder(card, shapes)
    return Seco(card)
