"""GFM's Swin on timm's blocks, at any window: position bias tables resized as the authors do, masks made per size."""

from collections.abc import Mapping
from functools import cache
from math import isqrt, log

import torch
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    get_relative_position_index,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn
from torch.nn import functional

from models.common.backbone import Backbone, Batch, channels_last_to_first
from models.common.card import Card
from models.common.errors import UserError
from models.common.tokens import guess

TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"
BUFFERS = (".relative_position_index", ".attn_mask")  # of the official file: they follow from size and window


def read_window(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Read the window off the position bias table, which has (2w-1)^2 rows: 121 in the official file, window 6.

    Raises `UserError` where the checkpoint is of another network.
    """
    stem = shapes.get("patch_embed.proj.weight", ())
    if TABLE not in shapes or len(stem) != 4:
        raise UserError(f"this is no checkpoint of {card.label}: it has no {TABLE}{guess(shapes)}")
    blocks = [key.split(".")[1] for key in shapes if key.startswith("layers.") and key.endswith(".norm1.weight")]
    depths = tuple(blocks.count(stage) for stage in sorted(set(blocks)))
    if (stem[0], depths) != (card.channels[0], card.build["depths"]):
        raise UserError(
            f"this checkpoint is a Swin of width {stem[0]} and depths {depths}; {card.label} has {card.channels[0]} "
            f"and {card.build['depths']}"
        )
    if stem[1:] != (3, 4, 4):
        raise UserError(
            f"this checkpoint has a stem of {stem[1]} bands and patches of {stem[2]} x {stem[3]} pixels; {card.label} "
            "has 3 bands and patches of 4 x 4"
        )
    rows = shapes[TABLE][0]
    side = isqrt(rows)
    if side * side != rows or side % 2 == 0 or side < 5:
        raise UserError(
            f"{TABLE} has {rows} rows, which is (2w-1)^2 for no window w from 3; the checkpoint is not of {card.label}"
        )
    return (side + 1) // 2


class Layer(nn.Module):
    """The blocks of one stage on maps (B, rows, columns, C), and the merging that follows it (None: the last stage)."""

    def __init__(self, blocks: nn.Module, downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks, self.downsample = blocks, downsample
        for block in blocks.children():
            block.register_buffer("attn_mask", None, persistent=False)  # timm's, for the one size it was built for

    def forward(self, tokens: Tensor, window: int, shift: int) -> Tensor:
        for index, block in enumerate(self.blocks.children()):
            assert isinstance(block, SwinTransformerBlock)
            tokens = tokens + block.drop_path1(attend(block, block.norm1(tokens), window, shift * (index % 2)))
            tokens = tokens + block.drop_path2(block.mlp(block.norm2(tokens)))
        return tokens


class Gfm(Backbone):
    """Swin-B with the keys of the official file; sides divisible by 32.

    The official network is built for one image size and one window that divides every map. Here both follow from the
    image: the window is the one nearest to that of the weights (by ratio, the larger of two) which fits the image, so
    192 pixels have 6, 256 have 8, 224 have 7. `set_window` sets another.
    """

    def __init__(self, card: Card, window: int) -> None:
        super().__init__(card)
        swin = SwinTransformer(
            img_size=32 * window,  # every stage then holds whole windows, so that every table has the same shape
            window_size=window,
            embed_dim=card.channels[0],
            depths=card.build["depths"],
            num_heads=card.build["heads"],
            num_classes=0,
        )
        self.trained_window = window
        self.given_window = 0
        self.patch_embed, self.norm = swin.patch_embed, swin.norm
        # The authors' merging ends a layer, timm's begins the next.
        blocks = [layer.get_submodule("blocks") for layer in swin.layers]
        mergings = [layer.get_submodule("downsample") for layer in list(swin.layers)[1:]]
        self.layers = nn.ModuleList(map(Layer, blocks, [*mergings, None]))

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave out index tables and masks."""
        return {key: value for key, value in state.items() if not key.endswith(BUFFERS)}

    def set_window(self, window: int) -> None:
        """Use this window for whatever fits it (0: choose by the image again)."""
        self.given_window = window

    def windows(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Window and shift (of every second block) of the four stages. Raises `UserError` where no window fits."""
        maps = [(height // stride, width // stride) for stride in self.card.strides]
        candidates = [self.given_window] if self.given_window else range(2, max(2, min(maps[0])) + 1)
        fitting = [window for window in candidates if fits(maps, window)]
        if height % 32 or width % 32 or not fitting:
            given = f"window {self.given_window}" if self.given_window else "any window"
            raise UserError(f"{self.card.label} cannot divide images of {height} x {width} pixels by {given}")
        chosen = min(fitting, key=lambda window: (abs(log(window / self.trained_window)), -window))
        return tuple(window_and_shift(size, chosen) for size in maps)

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The last output of each stage before merging (no norm), at strides 4, 8, 16, 32.

        `default` and `mean` (B, 1024) average the normed last map, `raw` averages it without the norm.
        """
        image = batch.images["optical"]
        windows = self.windows(image.shape[2], image.shape[3])
        patches = self.patch_embed.get_submodule("proj")(image)
        tokens = self.patch_embed.get_submodule("norm")(patches.permute(0, 2, 3, 1))
        stages = []
        for layer, (window, shift) in zip(self.layers, windows, strict=True):
            assert isinstance(layer, Layer)
            tokens = layer(tokens, window, shift)
            stages.append(channels_last_to_first(tokens))
            tokens = layer.downsample(tokens) if layer.downsample else tokens
        mean = self.norm(tokens).mean(dim=(1, 2))
        return tuple(stages), {"default": mean, "mean": mean, "raw": tokens.mean(dim=(1, 2))}


def window_and_shift(size: tuple[int, int], window: int) -> tuple[int, int]:
    """Window and shift on a map of this size: a map that is no larger than the window is one window, without shift."""
    return (min(size), 0) if min(size) <= window else (window, window // 2)


def fits(maps: list[tuple[int, int]], window: int) -> bool:
    """True if every map consists of whole windows, as the official network demands."""
    sides = [window_and_shift(size, window)[0] for size in maps]
    return all(side and not (rows % side or columns % side) for (rows, columns), side in zip(maps, sides, strict=True))


def attend(block: SwinTransformerBlock, tokens: Tensor, window: int, shift: int) -> Tensor:
    """Attention (B, rows, columns, C) -> same, within windows that are shifted by `shift` to the bottom right."""
    number, rows, columns, _ = tokens.shape
    attention = block.attn
    tokens = tokens.roll((-shift, -shift), dims=(1, 2))
    parts = window_partition(tokens, (window, window)).reshape(number, -1, window * window, tokens.shape[3])
    query, key, value = attention.qkv(parts).unflatten(3, (3, attention.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
    table = resize_table(attention.relative_position_bias_table, window)
    index = get_relative_position_index(window, window, device=tokens.device)
    bias = table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1)
    if shift:
        bias = bias + seam((rows, columns), window, shift).to(tokens)[:, None]
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    mixed = attention.proj(mixed.transpose(2, 3).flatten(3)).flatten(0, 1)
    return window_reverse(mixed, (window, window), rows, columns).roll((shift, shift), dims=(1, 2))


def seam(size: tuple[int, int], window: int, shift: int) -> Tensor:
    """(windows, window^2, window^2): -100 between pixels that only the roll has brought together, else 0."""
    row, column = (
        torch.arange(side).ge(side - window).int() + torch.arange(side).ge(side - shift).int() for side in size
    )
    regions = (3 * row[:, None] + column).view(1, *size, 1)
    regions = window_partition(regions, (window, window)).flatten(1)
    return -100.0 * (regions[:, :, None] != regions[:, None, :])


def resize_table(table: Tensor, window: int) -> Tensor:
    """Fit a position bias table ((2v-1)^2, heads) to another window: ((2w-1)^2, heads).

    As `remap_pretrained_keys_swin` of the official code: offsets are held to lie on a grid that is dense in the middle
    (`geometric_grid`), and a bicubic spline through it is read at whole offsets. timm's own rule gives other numbers.
    """
    source, target = isqrt(len(table)), 2 * window - 1
    if source == target:
        return table
    matrix = spline(source, target).to(table.device)
    grid = table.double().unflatten(0, (source, source))
    return torch.einsum("ik,jl,klh->ijh", matrix, matrix, grid).flatten(0, 1).to(table.dtype)


@cache
def spline(source: int, target: int) -> Tensor:
    """(target, source) in float64: values on the geometric grid -> those of their cubic spline at -t, ..., 0, ..., t.

    The spline is "not-a-knot": its knots are the grid points but for the outer two at each end. Beyond the grid the
    last value holds.
    """
    grid = geometric_grid(source // 2, target // 2)
    wanted = torch.arange(-(target // 2), target // 2 + 1, dtype=torch.float64).clamp(grid[0], grid[-1])

    def basis(x: Tensor) -> Tensor:
        knots = grid[2:-2] / grid[-1]
        x = (x / grid[-1])[:, None]
        return torch.cat([x ** torch.arange(4), (x - knots).clamp(min=0) ** 3], dim=1)

    return torch.linalg.solve(basis(grid), basis(wanted), left=False)


def geometric_grid(half: int, reach: int) -> Tensor:
    """(2 * half + 1) offsets 0, +-1, +-(1+q), +-(1+q+q^2), ..., with q in 1.01..1.5 such that the last is about `reach`."""
    low, high, ratio = 1.01, 1.5, 0.0
    while high - low > 1e-6:
        ratio = (low + high) / 2
        too_far = (1 - ratio**half) / (1 - ratio) > reach
        low, high = (low, ratio) if too_far else (ratio, high)
    steps = torch.cumsum(ratio ** torch.arange(half, dtype=torch.float64), dim=0)
    return torch.cat([-steps.flip(0), torch.zeros(1, dtype=torch.float64), steps])
