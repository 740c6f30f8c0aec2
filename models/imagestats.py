"""The control: mean, standard deviation and quantiles of each band. What a network must beat to have learned anything.

Multispectral scenes differ so much in colour alone that these few numbers go far; no weights, no download, any bands.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Mode

if TYPE_CHECKING:
    from models.common.backbone import Backbone

CARD = Card(
    name="imagestats",
    title="Band statistics (control)",
    inputs=(Mode("any", (), "any", (), size=0, multiple=1),),
    checkpoint=Checkpoint("none"),
    blocks=(),
    channels=(2, 2, 2, 2),
    strides=(4, 8, 16, 32),
    width=7,
    per_band=True,
    licence="MIT (no weights)",
    paper="none: a control of this project",
    gmacs="0",
    pretraining_data="none",
    build={"quantiles": (0.05, 0.25, 0.5, 0.75, 0.95)},
    variants={"full": {}, "mean_std": {"title": "Band mean and std (control)", "width": 2, "build": {"quantiles": ()}}},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The statistics as a backbone without parameters; `shapes` is always empty."""
    from models.networks.imagestats import ImageStats

    return ImageStats(card)
