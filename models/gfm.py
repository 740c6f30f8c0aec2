"""GFM (Mendieta et al., ICCV 2023, arXiv:2302.04476): Swin-B, window 6, trained on further from ImageNet-22k."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Divide, Mode, ZScore

if TYPE_CHECKING:
    from models.common.backbone import Backbone

IMAGENET = ZScore((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CARD = Card(
    name="gfm",
    title="GFM Swin-B",
    inputs=(
        # The official network is built for one square size, whose 32nd part is the smallest map that windows divide.
        Mode("rgb", ("red", "green", "blue"), "uint8", (Divide(255), IMAGENET), size=192, multiple=32, shape="square"),
    ),
    checkpoint=Checkpoint(
        "manual",
        file="gfm.pth",
        where="the OneDrive link in the README of https://github.com/mmendiet/GFM",
        container=("model",),
        strip=("encoder.",),
        ignore=("decoder.", "projector.", "teacher.", "mask_token"),
    ),
    blocks=(1, 2, 3, 4),
    channels=(128, 256, 512, 1024),
    strides=(4, 8, 16, 32),
    width=1024,
    licence="Apache-2.0 (code); not stated (weights)",
    paper="Mendieta et al., ICCV 2023, arXiv:2302.04476",
    parameters_millions=86.7,
    gmacs="11.3 at 192 px",
    pretraining_data="GeoPile (600,000 RGB images of five sources), from a Swin-B of ImageNet-22k",
    published_as=("GFM",),
    build={"depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 6},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """A Swin whose position bias tables are of the checkpoint's window (random: 6)."""
    from models.networks.gfm import Gfm, read_window

    return Gfm(card, read_window(card, shapes) if shapes else card.build["window"])
