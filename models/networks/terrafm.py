"""TerraFM: a stem per sensor and one projection for all, in front of a plain ViT."""

import torch
from torch import Tensor, cat, nn

from models.common.backbone import Batch
from models.common.card import Card
from models.common.tokens import VitShape, resize_positions
from models.networks.vit import PlainViT

BANDS = {"s2_l2a": 12, "s2_l1c": 12, "s1": 2}  # by stem


class Projection(nn.Module):
    """Three linear layers (B, N, 3C) -> (B, N, C) with a norm after the first and no activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj1 = nn.Linear(3 * width, 3 * width, bias=False)
        self.norm_input = nn.LayerNorm(3 * width, eps=1e-5)
        self.proj2 = nn.Linear(3 * width, 3 * width)
        self.proj3 = nn.Linear(3 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj3(self.proj2(self.norm_input(self.proj1(tokens))))


class PatchEmbed(nn.Module):
    """A convolution and a vector per sensor, and a projection for all; gives tokens (B, N, C) and their grid."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        for stem, bands in BANDS.items():
            self.add_module(f"conv2d_{stem}", nn.Conv2d(bands, 3 * width, patch, patch))
            self.register_parameter(f"{stem}_embed", nn.Parameter(0.02 * torch.randn(1, 3 * width)))
        self.projection = Projection(width)

    def forward(self, image: Tensor, stem: str) -> tuple[Tensor, tuple[int, int]]:
        patches = self.get_submodule(f"conv2d_{stem}")(image)
        tokens = patches.flatten(2).transpose(1, 2) + self.get_parameter(f"{stem}_embed")
        return self.projection(tokens), (patches.shape[2], patches.shape[3])


class TerraFM(PlainViT):
    """Class token and patches, pre-norm blocks, DINO's positions; every stage is normed, as in `extract_feature`.

    `l2a` sends images of twelve bands through the L2A stem. The authors' forward never does, so it is off but in parity
    runs. `card.build` as in `PlainViT`.
    """

    l2a = False

    def __init__(self, card: Card, shape: VitShape) -> None:
        super().__init__(card, shape, stems={})
        self.patch_embed = PatchEmbed(shape.patch, card.width)

    def stem(self, batch: Batch) -> str:
        """Which stem a batch goes through: by the number of channels."""
        channels = next(iter(batch.images.values())).shape[1]
        return "s1" if channels == BANDS["s1"] else "s2_l2a" if self.l2a else "s2_l1c"

    def embed(self, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Tokens with their positions (B, 1 + rows*columns, C), class token first, and the grid (rows, columns)."""
        image = next(iter(batch.images.values()))
        patches, grid = self.patch_embed(image, self.stem(batch))
        tokens = cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1)
        return tokens + resize_positions(self.pos_embed, (image.shape[2], image.shape[3]), self.patch), grid
