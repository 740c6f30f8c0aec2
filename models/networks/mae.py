"""MAE's encoder: a plain ViT whose position table is resized by size, and SatMAE's, which computes a fresh one."""

from math import isqrt

from torch import Tensor, cat, nn
from torch.nn import functional

from models.common.backbone import Batch
from models.common.card import Card
from models.common.tokens import VitShape, sincos_positions
from models.networks.vit import PlainViT


class MaeViT(PlainViT):
    """MAE: sine-cosine positions are stored with the weights, and bicubically resized for any grid but theirs."""

    def __init__(self, card: Card, shape: VitShape) -> None:
        super().__init__(card, shape, stems={"patch_embed": 3})
        self.pos_embed = nn.Parameter(sincos_positions((shape.grid, shape.grid), card.width))

    def positions(self, batch: Batch, grid: tuple[int, int]) -> Tensor:
        """The table (1, 1 + rows*columns, C), as `interpolate_pos_embed`: by output size and without antialias."""
        stored = isqrt(self.pos_embed.shape[1] - 1)
        if grid == (stored, stored):
            return self.pos_embed
        table = self.pos_embed[:, 1:].unflatten(1, (stored, stored)).permute(0, 3, 1, 2)
        table = functional.interpolate(table, size=grid, mode="bicubic", align_corners=False, antialias=False)
        return cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2)], dim=1)


class SatMaeViT(MaeViT):
    """SatMAE of RGB images: the stored positions at their own grid, fresh ones at any other."""

    def positions(self, batch: Batch, grid: tuple[int, int]) -> Tensor:
        """The table (1, 1 + rows*columns, C). The authors' evaluation drops a stored one that does not fit."""
        return stored_or_fresh(self.pos_embed, grid)


def stored_or_fresh(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """The stored table (1, 1 + N*N, C) if it is of this grid, else the sine-cosine table of the grid.

    What the authors' `main_finetune.py` comes to: it deletes a stored table of another length, and the network keeps
    that of its constructor. Interpolating the stored one instead is off by more than the features are large.
    """
    rows, columns = grid
    if rows == columns and table.shape[1] == 1 + rows * columns:
        return table
    return sincos_positions(grid, table.shape[2]).to(table)
