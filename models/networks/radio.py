"""RADIO's ViT: positions cropped from one large grid, several class tokens, no final norm, its own input statistics."""

from collections.abc import Mapping
from functools import partial
from math import isqrt

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, cat, nn
from torch.nn import functional

from models.common.backbone import Backbone, Batch, tokens_to_map
from models.common.card import Card
from models.common.errors import UserError
from models.common.tokens import guess

EMBEDDER, TOKENS, POSITIONS = (
    f"patch_generator.{name}" for name in ("embedder.weight", "cls_token.token", "pos_embed")
)
# OpenAI CLIP's, as the official `input_conditioner.py` has them and every file repeats.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def read_grid(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Read the side of the position grid off the checkpoint (128 in the official file: images up to 2048 pixels).

    Raises `UserError` where the checkpoint is of another network, or its weights are not realised.
    """
    if any(".parametrizations." in key for key in shapes):
        raise UserError(
            "the weights of this checkpoint are spectrally reparametrised: realise them with the official "
            "enable_spectral_reparam.py first"
        )
    missing = [key for key in (EMBEDDER, TOKENS, POSITIONS) if key not in shapes]
    if missing:
        raise UserError(f"this is no checkpoint of {card.label}: it has no {missing[0]}{guess(shapes)}")
    width, pixels = shapes[EMBEDDER]
    depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in shapes)
    patch, tokens = isqrt(pixels // 3), shapes[TOKENS][0]
    found = {"width": width, "depth": depth, "patch": patch, "tokens": tokens}
    if found != {name: card.build[name] for name in found}:
        raise UserError(
            f"this checkpoint has width {width}, {depth} blocks, patch size {patch} and {tokens} class and register "
            f"tokens; {card.label} has {card.build['width']}, {card.build['depth']}, {card.build['patch']} and "
            f"{card.build['tokens']}"
        )
    side = isqrt(shapes[POSITIONS][1])
    if side * side != shapes[POSITIONS][1]:
        raise UserError(f"this checkpoint stores {shapes[POSITIONS][1]} positions, which is no square grid")
    return side


class InputConditioner(nn.Module):
    """(x - mean) / std with the statistics in the file, for red, green, blue in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("norm_mean", torch.tensor(CLIP_MEAN).view(3, 1, 1))
        self.register_buffer("norm_std", torch.tensor(CLIP_STD).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.get_buffer("norm_mean")) / self.get_buffer("norm_std")


class PatchGenerator(nn.Module):
    """Image (B, 3, H, W) -> tokens (B, classes and registers + rows * columns, C), positions added to patches alone."""

    def __init__(self, width: int, patch: int, tokens: int, grid: int) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.embedder = nn.Linear(3 * patch * patch, width, bias=False)
        self.pos_embed = nn.Parameter(torch.randn(1, grid * grid, width) * width**-0.5)
        self.cls_token = nn.Module()
        self.cls_token.token = nn.Parameter(torch.randn(tokens, width) * width**-0.5)

    def forward(self, image: Tensor) -> Tensor:
        rows, columns = image.shape[2] // self.patch, image.shape[3] // self.patch
        pixels = functional.unfold(image, self.patch, stride=self.patch).transpose(1, 2)  # band, then row, then column
        tokens = self.embedder(pixels) + crop_positions(self.pos_embed, self.grid, (rows, columns))
        return cat([self.cls_token.get_parameter("token").expand(len(image), -1, -1), tokens], dim=1)


class Radio(Backbone):
    """RADIOv2.5 with the keys of the official file below `base_model.`; sides divisible by 16.

    `conditioned` is what the authors' `make_preprocessor_external` takes away: the input statistics inside.
    """

    def __init__(self, card: Card, grid: int) -> None:
        super().__init__(card)
        facts = card.build
        vit = VisionTransformer(
            patch_size=facts["patch"],
            embed_dim=facts["width"],
            depth=facts["depth"],
            num_heads=facts["heads"],
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_classes=0,
        )
        self.conditioned = True
        self.input_conditioner = InputConditioner()
        self.patch_generator = PatchGenerator(facts["width"], facts["patch"], facts["tokens"], grid)
        self.blocks = vit.blocks

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file without input statistics gets the official ones."""
        own = InputConditioner().state_dict(prefix="input_conditioner.")
        return {**own, **state}

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps (B, 768, H / 16, W / 16); every vector (B, 2304) is the class tokens of three teachers, side by side."""
        image = batch.images["optical"]
        patch, limit = self.patch_generator.patch, self.patch_generator.patch * self.patch_generator.grid
        if max(image.shape[2:]) > limit:
            raise UserError(f"{self.card.label} takes images up to {limit} pixels, got {tuple(image.shape[2:])}")
        grid = (image.shape[2] // patch, image.shape[3] // patch)
        tokens = self.patch_generator(self.input_conditioner(image) if self.conditioned else image)
        stages = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.card.blocks:
                stages.append(tokens_to_map(tokens[:, -grid[0] * grid[1] :], grid))
        vector = summary(self.card, tokens)
        return tuple(stages), {"default": vector, "raw": vector, "cls": vector}


def summary(card: Card, tokens: Tensor) -> Tensor:
    """The class tokens of the teachers that have a summary (SAM has none), side by side: (B, 3 * C)."""
    return tokens[:, list(card.build["summary"])].flatten(1)


def crop_positions(table: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Fit the position table (1, side * side, C) to `grid` (rows, columns) patches: (1, rows * columns, C).

    As RADIO does in evaluation: resized bilinearly (no antialias, corners not aligned) to a square with the longer side
    of the grid, of which the top left is kept.
    """
    if grid == (side, side):
        return table
    longer = max(grid)
    square = table.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    square = functional.interpolate(square, size=(longer, longer), mode="bilinear", align_corners=False)
    return square[..., : grid[0], : grid[1]].flatten(2).transpose(1, 2).to(table.dtype)
