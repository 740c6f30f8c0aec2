"""DEO's Swin: torchvision's blocks behind two patch stems, one for ten Sentinel-2 bands and one for RGB.

torchvision and not timm: torchvision pads a map to a multiple of the window and then rolls it, timm rolls and then
pads, and timm shrinks the window on small maps. Where padding meets a shift, features differ by more than their size.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops.misc import Permute

from models.common.backbone import Backbone, Batch, channels_last_to_first
from models.common.card import Card
from models.common.errors import UserError
from models.common.tokens import guess

TABLE = "features.0.0.attn.relative_position_bias_table"
STAGES = (0, 2, 4, 6)  # in `features`; 1, 3, 5 are the patch mergings between them
# Of torchvision's swin_t, for protocols that leave the backbone in train mode; no checkpoint tells it.
STOCHASTIC_DEPTH: dict[tuple[int, tuple[int, ...]], float] = {(96, (2, 2, 6, 2)): 0.2}


def read_card(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Card, int]:
    """Read the shape of the Swin and its window off a checkpoint: the card that fits it, and the window in tokens.

    Width and depths are in the names and shapes of the blocks; the position bias table (2w-1)^2 x heads tells heads and
    window: 169 rows are window 7, which the released code builds, 529 are window 12, which the released weights are
    said to have. Raises `UserError` where the checkpoint is no Swin of four stages with both stems.
    """
    if TABLE not in shapes or "conv_ms.0.weight" not in shapes:
        raise UserError(f"this is no checkpoint of {card.label}: it has no {TABLE} or no conv_ms{guess(shapes)}")
    blocks = [key.split(".")[1] for key in shapes if key.startswith("features.") and key.endswith(".norm1.weight")]
    depths = tuple(blocks.count(str(stage)) for stage in STAGES)
    tables = [shapes.get(TABLE.replace("0.0", f"{stage}.0"), ()) for stage in STAGES]
    if not all(len(table) == 2 for table in tables):
        raise UserError(f"this checkpoint is a Swin of {depths} blocks per stage; {card.label} has four stages")
    width, heads = shapes["conv_ms.0.weight"][0], tuple(table[1] for table in tables)
    if any(width * 2**stage % number for stage, number in enumerate(heads)):
        raise UserError(f"this checkpoint is of width {width} and heads {heads}, which do not divide it")
    rows = tables[0][0]
    side = isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise UserError(
            f"{TABLE} has {rows} rows, which is (2w-1)^2 for no window w; the checkpoint is not of {card.label}"
        )
    if (width, depths, heads) != (card.channels[0], card.build["depths"], card.build["heads"]):
        card = swin_card(card, width, depths, heads, STOCHASTIC_DEPTH.get((width, depths), 0.0))
    return card, (side + 1) // 2


def swin_card(card: Card, width: int, depths: tuple[int, ...], heads: tuple[int, ...], stochastic_depth: float) -> Card:
    """DEO's card for a Swin of another shape: `width` of the first stage, blocks and heads of the four stages."""
    first, second, third, fourth = (width * 2**stage for stage in range(4))
    return replace(
        card,
        title=f"DEO Swin of width {width} and {'-'.join(map(str, depths))} blocks",
        channels=(first, second, third, fourth),
        width=fourth,
        parameters_millions=0.0,
        gmacs="",
        pretraining_data="",
        published_as=(),
        build={**card.build, "depths": depths, "heads": heads, "stochastic_depth": stochastic_depth},
    )


class DeoSwin(Backbone):
    """Swin with the keys of DEO's release. Any height and width divisible by 4; `window` in pixels of a map.

    `card.channels` has the width, `card.build` has `depths`, `heads` and `stochastic_depth`.
    """

    def __init__(self, card: Card, window: int) -> None:
        super().__init__(card)
        width = card.channels[0]
        swin = SwinTransformer(
            [4, 4],
            width,
            list(card.build["depths"]),
            list(card.build["heads"]),
            [window, window],
            stochastic_depth_prob=card.build["stochastic_depth"],
        )
        self.window = window
        self.conv_ms, self.conv_rgb = (
            nn.Sequential(nn.Conv2d(bands, width, 4, 4), Permute([0, 2, 3, 1]), nn.LayerNorm(width, eps=1e-5))
            for bands in (10, 3)
        )
        # The release deletes torchvision's own stem, so that its keys count from 0 here.
        self.features = nn.Sequential(*list(swin.features)[1:])
        self.norm = swin.norm

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep our own index tables: they follow from the window and are no weights."""
        own = {key: value for key, value in self.state_dict().items() if key.endswith("relative_position_index")}
        return {**state, **own}

    def tap(self, image: Tensor) -> list[Tensor]:
        """Images (B, 10 or 3, H, W), each through the stem of its number of bands -> the four stages (B, h, w, C)."""
        tokens = self.conv_ms(image) if image.shape[1] == 10 else self.conv_rgb(image)
        stages = []
        for index, layer in enumerate(self.features):
            tokens = layer(tokens)
            if index in STAGES:
                stages.append(tokens)
        return stages

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The last output of each Swin stage before merging (no norm), at strides 4, 8, 16, 32.

        `default` and `mean` (B, width) average the normed last map, as in pretraining; `raw` averages it without the
        norm, as the authors' classifier did.
        """
        stages = self.tap(batch.images["optical"])
        mean = self.norm(stages[3]).mean(dim=(1, 2))
        vectors = {"default": mean, "mean": mean, "raw": stages[3].mean(dim=(1, 2))}
        return tuple(channels_last_to_first(stage) for stage in stages), vectors
