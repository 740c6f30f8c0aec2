"""A plain ViT on timm's blocks, its position table resized as DINO does: DINOv2, X-STARS, and the ViT of DEO."""

from collections.abc import Mapping
from functools import partial

from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, cat, nn

from models.common.backbone import Backbone, Batch
from models.common.card import Card
from models.common.tokens import VitShape, maps_and_vectors, resize_positions


def transformer(card: Card, shape: VitShape) -> VisionTransformer:
    """timm's ViT of `card.width` and of `depth`, `heads`, `layer_scale` in `card.build`, whose parts are made use of."""
    return VisionTransformer(
        img_size=shape.patch * shape.grid,
        patch_size=shape.patch,
        embed_dim=card.width,
        depth=card.build["depth"],
        num_heads=card.build["heads"],
        init_values=card.build["layer_scale"],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=0,
    )


class PlainViT(Backbone):
    """Class token and patches, pre-norm blocks, learned positions; the stages are the outputs of `card.blocks`.

    `stems` maps the name of each patch embedding to its number of input bands; an image takes the one it fits.
    `card.build`: `depth`, `heads`, `layer_scale` (initial value, or None for none), `norm_stages`. timm is given the
    parts only: its own forward pass resizes positions by size and with antialias, which gives other numbers.
    """

    def __init__(self, card: Card, shape: VitShape, stems: Mapping[str, int]) -> None:
        super().__init__(card)
        vit = transformer(card, shape)
        self.patch = shape.patch
        self.stems = {bands: name for name, bands in stems.items()}
        for name, bands in stems.items():
            self.add_module(name, PatchEmbed(None, shape.patch, bands, card.width))
        self.cls_token, self.pos_embed = vit.get_parameter("cls_token"), vit.get_parameter("pos_embed")
        self.blocks, self.norm = vit.blocks, vit.norm

    def positions(self, batch: Batch, grid: tuple[int, int]) -> Tensor:
        """Positions (1, 1 + rows*columns, C) for a `grid` of patches, class position first; (B, ...) if images differ."""
        height, width = batch.images["optical"].shape[2:]
        return resize_positions(self.pos_embed, (height, width), self.patch)

    def embed(self, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Tokens with their positions (B, 1 + rows*columns, C), class token first, and the grid (rows, columns)."""
        image = batch.images["optical"]
        stem = self.get_submodule(self.stems[image.shape[1]])
        patches = stem.get_submodule("proj")(image)  # drops a remainder of rows and columns, as the authors' code
        grid = (patches.shape[2], patches.shape[3])
        tokens = cat([self.cls_token.expand(len(image), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + self.positions(batch, grid), grid

    def tap(self, tokens: Tensor) -> list[Tensor]:
        """The outputs of `card.blocks`, each of the shape of the tokens."""
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.card.blocks:
                outputs.append(tokens)
        return outputs

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps (B, C, H // patch, W // patch), and the vectors `default` = `cls`, `raw`, `mean` (B, C)."""
        tokens, grid = self.embed(batch)
        outputs = self.tap(tokens)
        return maps_and_vectors(outputs, self.norm, prefix=1, grid=grid, norm_stages=self.card.build["norm_stages"])
