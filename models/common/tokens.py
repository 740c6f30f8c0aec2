"""What ViTs share: facts read off a checkpoint, positions resized as DINO does, tokens turned into maps and vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

from torch import Tensor, arange, cat, float64, nn, ones, zeros_like
from torch.nn import functional

from models.common.backbone import tokens_to_map
from models.common.card import Card
from models.common.errors import UserError


def resize_positions(table: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """Fit a position table (1, 1 + N*N, C), class position first, to an image of `size` (H, W) pixels.

    Returns (1, 1 + rows*columns, C). As DINO v1 and v2 (`interpolate_pos_encoding`): kept as it is for a square image
    of N*N patches, else bicubic in float32 without antialias. Their scale factor carries an offset of 0.1 patches, and
    it is the factor, not the output size, that sets the sampling positions: passing `size=` gives other numbers.
    """
    rows, columns = size[0] // patch, size[1] // patch
    stored = isqrt(table.shape[1] - 1)
    if rows * columns == stored * stored and size[0] == size[1]:
        return table
    grid = table[:, 1:].float().unflatten(1, (stored, stored)).permute(0, 3, 1, 2)
    factor = ((rows + 0.1) / stored, (columns + 0.1) / stored)
    grid = functional.interpolate(grid, scale_factor=factor, mode="bicubic", align_corners=False, antialias=False)
    assert grid.shape[2:] == (rows, columns), (grid.shape, rows, columns)
    return cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def sincos_positions(grid: tuple[int, int], width: int, scale: Tensor | None = None) -> Tensor:
    """Sine-cosine positions (N, 1 + rows*columns, width), float32, the class position first and zero.

    As MAE (`util/pos_embed.py`): column p has sin(p w) then cos(p w) in the first half of the channels, row p in the
    second half, with w_k = 10000 ** (-k / (width / 4)). `scale` (N,) multiplies the indices, one table per entry, and
    decides device and precision (Scale-MAE: float32); without it they count by one in float64, cast at the end.
    """
    scale = ones(1, dtype=float64) if scale is None else scale
    frequencies = 10000 ** -(arange(width // 4, dtype=scale.dtype, device=scale.device) / (width / 4))
    halves = []
    for length in grid:
        index = arange(length, dtype=scale.dtype, device=scale.device) * scale[:, None]
        angles = index[..., None] * frequencies
        halves.append(cat([angles.sin(), angles.cos()], dim=2))
    shape = (-1, *grid, -1)
    rows, columns = halves[0][:, :, None].expand(shape), halves[1][:, None].expand(shape)
    table = cat([columns, rows], dim=3).flatten(1, 2)
    return cat([zeros_like(table[:, :1]), table], dim=1).float()


def maps_and_vectors(
    outputs: Sequence[Tensor], norm: nn.Module, prefix: int, grid: tuple[int, int], norm_stages: bool
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Turn block outputs (B, prefix + rows*columns, C), class token first, into four stages and the vectors by kind.

    Stages are (B, C, rows, columns), vectors (B, C). `norm` is the final norm; `norm_stages` says whether the stages
    carry it. `default` and `cls` are the normed class token, `raw` the same before the norm, `mean` the mean of the
    normed patch tokens, all of the last output.
    """
    last = norm(outputs[-1])
    tokens = [*(norm(output) for output in outputs[:-1]), last] if norm_stages else outputs
    stages = tuple(tokens_to_map(output[:, prefix:], grid) for output in tokens)
    vectors = {"default": last[:, 0], "cls": last[:, 0], "raw": outputs[-1][:, 0], "mean": last[:, prefix:].mean(dim=1)}
    return stages, vectors


@dataclass(frozen=True)
class VitShape:
    """What a ViT checkpoint says about itself: patch size in pixels, and side of the stored position grid (0: none)."""

    patch: int
    grid: int


def read_shape(card: Card, shapes: Mapping[str, tuple[int, ...]], stem: str = "patch_embed") -> VitShape:
    """Read patch size and grid off the shapes of a checkpoint; refuse one that is not of this card's network.

    `card.build` holds the `depth`, `card.width` the width. Raises `UserError` saying what the checkpoint is instead.
    """
    weight = shapes.get(f"{stem}.proj.weight", ())
    if len(weight) != 4 or "cls_token" not in shapes:
        raise UserError(
            f"this is no checkpoint of {card.label}: it has no {stem}.proj.weight or cls_token{guess(shapes)}"
        )
    width, depth = weight[0], sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in shapes)
    expected = (card.width, card.build["depth"])
    if (width, depth) != expected:
        raise UserError(
            f"this checkpoint has width {width} and {depth} blocks; {card.label} has {expected[0]} and {expected[1]}"
        )
    if weight[2] != weight[3]:
        raise UserError(
            f"this checkpoint has patches of {weight[2]} x {weight[3]} pixels; {card.label} wants square ones"
        )
    positions = shapes.get("pos_embed", (1, 1, width))[1] - 1
    if isqrt(positions) ** 2 != positions:
        raise UserError(f"this checkpoint stores {positions} positions, which is no square grid, as {card.label} wants")
    return VitShape(weight[2], isqrt(positions))


def expect_shape(card: Card, shapes: Mapping[str, tuple[int, ...]], stem: str = "patch_embed") -> VitShape:
    """As `read_shape`, for a network of one patch size that keeps a position table: `patch` and `grid` of `card.build`.

    Without shapes (random weights) it is these. Raises `UserError` for a checkpoint of another patch size or no table.
    """
    own = VitShape(card.build["patch"], card.build["grid"])
    if not shapes:
        return own
    found = read_shape(card, shapes, stem)
    if found.patch != own.patch:
        raise UserError(f"this checkpoint has patch size {found.patch}; {card.label} has {own.patch}")
    if not found.grid:
        raise UserError(f"this checkpoint has no position table; that of {card.label} has {own.grid}^2 positions")
    return found


def guess(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say what a foreign checkpoint looks like, as the end of a sentence (empty if nothing is recognised)."""
    if any(key.endswith("relative_position_bias_table") for key in shapes):
        return "; it looks like a Swin"
    if any(key.startswith("embeddings.") for key in shapes):
        return "; it has the key layout of the transformers library, and the authors' own file is needed"
    if "patch_embed_ms.proj.weight" in shapes:
        return "; it looks like DEO's ViT (deo:vit)"
    if "patch_embed.0.proj.weight" in shapes:
        return "; it looks like SatMAE's ViT of channel groups (satmae:sentinel)"
    if "storage_tokens" in shapes:
        return "; it looks like a DINOv3"
    if "patch_embed.proj.weight" in shapes:
        return "; it looks like another ViT"
    if "layer1.0.conv1.weight" in shapes:
        return "; it looks like a ResNet"
    return ""
