"""SatMAE for Sentinel-2: a ViT whose tokens are patches of groups of bands, on timm's blocks."""

from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, cat, nn, stack, zeros

from models.common.backbone import Backbone, Batch, tokens_to_map
from models.common.card import Card
from models.common.tokens import VitShape, sincos_positions
from models.networks.mae import stored_or_fresh
from models.networks.vit import transformer


class GroupChannelViT(Backbone):
    """Class token, then the patches of every group of bands, group after group; the stages are means over the groups.

    `card.build`: `groups` (indices of the bands of each), `channel_width` (the channels of the embedding that tell the
    groups apart; the rest tell the positions), `depth`, `heads`, `patch`, `grid`.
    """

    def __init__(self, card: Card, shape: VitShape) -> None:
        super().__init__(card)
        self.groups: tuple[tuple[int, ...], ...] = card.build["groups"]
        width: int = card.build["channel_width"]
        vit = transformer(card, shape)
        self.patch_embed = nn.ModuleList(PatchEmbed(None, shape.patch, len(group), card.width) for group in self.groups)
        self.cls_token, self.blocks, self.norm = vit.get_parameter("cls_token"), vit.blocks, vit.norm
        self.pos_embed = nn.Parameter(sincos_positions((shape.grid, shape.grid), card.width - width))
        # The authors' embedding of a group is the one-dimensional sine-cosine code of its number: that of a column.
        of_columns = sincos_positions((1, len(self.groups)), 2 * width)
        self.channel_embed = nn.Parameter(of_columns[:, 1:, :width].contiguous())

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps (B, C, H // patch, W // patch), and the vectors `default` = `cls`, `raw`, `mean` (B, C)."""
        image = batch.images["optical"]
        maps = [
            embed.get_submodule("proj")(image[:, list(group)])
            for embed, group in zip(self.patch_embed, self.groups, strict=True)
        ]
        grid = (maps[0].shape[2], maps[0].shape[3])
        patches = stack([found.flatten(2).transpose(1, 2) for found in maps], dim=1)  # (B, groups, rows*columns, C)
        table = stored_or_fresh(self.pos_embed, grid)
        channel = self.channel_embed[:, :, None].expand(-1, -1, patches.shape[2], -1)
        patches = patches + cat([table[:, None, 1:].expand(-1, len(self.groups), -1, -1), channel], dim=3)
        # `channel_cls_embed` of the authors' fine-tuning network is in no pretraining checkpoint, and begins as zeros.
        nothing = zeros(1, 1, self.channel_embed.shape[2], dtype=table.dtype, device=table.device)
        first = self.cls_token + cat([table[:, :1], nothing], dim=2)
        tokens = cat([first.expand(len(image), -1, -1), patches.flatten(1, 2)], dim=1)
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.card.blocks:
                outputs.append(tokens)
        last = self.norm(outputs[-1])
        vectors = {"default": last[:, 0], "cls": last[:, 0], "raw": outputs[-1][:, 0], "mean": last[:, 1:].mean(dim=1)}
        return tuple(self.group_maps(output, grid).mean(dim=1) for output in outputs), vectors

    def group_maps(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, 1 + groups*rows*columns, C) -> one map for each group (B, groups, C, rows, columns)."""
        patches = tokens[:, 1:].unflatten(1, (len(self.groups), -1))
        return stack([tokens_to_map(group, grid) for group in patches.unbind(1)], dim=1)
