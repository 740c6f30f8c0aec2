"""Scale-MAE's encoder: a plain ViT whose positions are computed from how much ground a pixel covers."""

from math import isqrt

from torch import Tensor, float32, full

from models.common.backbone import Batch
from models.common.card import Card
from models.common.errors import UserError
from models.common.tokens import VitShape, maps_and_vectors, sincos_positions
from models.networks.vit import PlainViT


class ScaleMaeViT(PlainViT):
    """Positions are sine-cosine codes of patch indices times a relative scale, one per image (the authors' `input_res`).

    The scale is no GSD in metres: the authors pass 1 for any data set at 224 pixels, and for a scene shown at another
    size what a pixel covers relative to that, 224 / side (their `--eval_gsd`): the real GSD drops out of this ratio.
    The stored position table is never used, though the file holds one.
    `class_token` is False where the class token leaves before the first block, as DEO's segmentation ran this model.
    """

    class_token: bool = True

    def __init__(self, card: Card, shape: VitShape) -> None:
        super().__init__(card, shape, stems={"patch_embed": 3})

    def scale(self, batch: Batch) -> Tensor:
        """The relative scale of each image (B,), float32: the batch's own, or that of its size."""
        image = batch.images["optical"]
        if batch.relative_gsd is not None:
            return batch.relative_gsd.to(image.device, float32)
        reference = self.card.mode(batch.mode).size
        return full((len(image),), reference / image.shape[2], dtype=float32, device=image.device)

    def positions(self, batch: Batch, grid: tuple[int, int]) -> Tensor:
        """One table per image (B, 1 + rows*columns, C). The authors lay out a square grid, whatever the image's sides."""
        side = isqrt(grid[0] * grid[1])
        if side * side != grid[0] * grid[1]:
            raise UserError(f"{self.card.label} wants square images, got {grid[0]} x {grid[1]} patches")
        return sincos_positions((side, side), self.card.width, self.scale(batch)).to(self.pos_embed.dtype)

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps (B, C, H // 16, W // 16), and the vectors `default` = `cls`, `raw`, `mean` (B, C).

        Without the class token `default` is the mean of the normed patch tokens and `raw` that of the others.
        """
        tokens, grid = self.embed(batch)
        if self.class_token:
            return maps_and_vectors(self.tap(tokens), self.norm, prefix=1, grid=grid, norm_stages=False)
        outputs = self.tap(tokens[:, 1:])
        stages, vectors = maps_and_vectors(outputs, self.norm, prefix=0, grid=grid, norm_stages=False)
        return stages, {"default": vectors["mean"], "mean": vectors["mean"], "raw": outputs[-1].mean(dim=1)}
