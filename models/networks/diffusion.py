"""Stable Diffusion 2.1 as far as features need it: the denoising UNet, the encoder of the VAE, the text encoder.

Names and shapes of the state dicts are those of the released diffusers folders (`unet`, `vae`, `text_encoder`). None of
timm, torchvision and torchgeo has these networks; here every tensor that SatDiFuser taps is returned, not hooked.
"""

from collections.abc import Sequence
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 32
PAD, LENGTH = 0, 77  # the tokeniser of Stable Diffusion 2.x fills a prompt up with id 0 to 77 tokens


class Size(NamedTuple):
    """Widths and head counts of the three networks; the latent space has four channels at an eighth of the size."""

    unet: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    vae: tuple[int, int, int, int]
    text: int
    text_hidden: int
    text_layers: int
    text_heads: int


class Residual(nn.Module):
    """Two normed 3 x 3 convolutions beside a shortcut; a time embedding of width `time` is added between (0: none)."""

    def __init__(self, inputs: int, outputs: int, time: int, eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, inputs, eps), nn.GroupNorm(GROUPS, outputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if time:
            self.time_emb_proj = nn.Linear(time, outputs)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W), (B, time) -> the map (B, outputs, H, W), and what the convolutions added to the shortcut."""
        added = self.conv1(functional.silu(self.norm1(x)))
        if time is not None:
            added = added + self.time_emb_proj(functional.silu(time))[:, :, None, None]
        added = self.conv2(functional.silu(self.norm2(added)))
        return added + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x), added


class Attention(nn.Module):
    """Attention of tokens (B, N, C) to themselves, or to a context (B, M, `context`)."""

    def __init__(self, width: int, heads: int, context: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k, self.to_v = (nn.Linear(context or width, width, bias=bias) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        context = tokens if context is None else context
        q, k, v = (
            project(source).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project, source in ((self.to_q, tokens), (self.to_k, context), (self.to_v, context))
        )
        return self.to_out[0](functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GatedGelu(nn.Module):
    """Linear to twice the width; one half is gated by the exact GELU of the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        values, gate = self.proj(tokens).chunk(2, dim=-1)
        return values * functional.gelu(gate)


class FeedForward(nn.Module):
    """The feed-forward part of a transformer block; `net` counts the dropout that is never used here."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


class Block(nn.Module):
    """Self-attention, cross-attention to the prompt and feed-forward, each pre-norm and residual."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, heads)
        self.attn2 = Attention(width, heads, context)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens, and what self-attention added to them."""
        attended = self.attn1(self.norm1(tokens))
        tokens = tokens + attended
        tokens = tokens + self.attn2(self.norm2(tokens), context)
        return tokens + self.ff(self.norm3(tokens)), attended


class Transformer(nn.Module):
    """One block over the pixels of a map, beside a shortcut."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, 1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([Block(width, heads, context)])

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W), (B, M, context) -> the map, and the output of its self-attention as a map."""
        size = (x.shape[2], x.shape[3])
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        tokens, attended = self.transformer_blocks[0](tokens, context)
        x = x + self.proj_out(tokens).transpose(1, 2).unflatten(2, size)
        return x, attended.transpose(1, 2).unflatten(2, size)


class Level(nn.Module):
    """One resolution: residual blocks with so many `inputs`, each followed by a transformer if there are `heads`."""

    def __init__(
        self, inputs: Sequence[int], width: int, time: int, heads: int = 0, context: int = 0, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.width = width
        self.resnets = nn.ModuleList(Residual(number, width, time, eps) for number in inputs)
        self.attentions = nn.ModuleList(Transformer(width, heads, context) for _ in inputs if heads)

    def step(self, index: int, x: Tensor, time: Tensor | None, context: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Block `index` and its transformer -> the map, and what was added to it: by the block, by self-attention."""
        x, added = self.resnets[index](x, time)
        if not self.attentions:
            return x, [added]
        x, attended = self.attentions[index](x, context)
        return x, [added, attended]


class Resample(nn.Module):
    """A 3 x 3 convolution that keeps, halves (`stride` 2) or, after doubling pixels (`scale` 2), doubles the size.

    Without `padding` there is one row and column of zeros at the right and bottom only, as in the VAE.
    """

    def __init__(self, width: int, stride: int = 1, scale: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.margin = (0, 1, 0, 1) if padding == 0 else (0, 0, 0, 0)
        self.conv = nn.Conv2d(width, width, 3, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale > 1:
            x = functional.interpolate(x, scale_factor=float(self.scale), mode="nearest")
        return self.conv(functional.pad(x, self.margin))


class Down(Level):
    """A level on the way down, with a halving behind it unless it is the last."""

    def __init__(self, *arguments: Any, last: bool, padding: int = 1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.downsamplers = nn.ModuleList([] if last else [Resample(self.width, stride=2, padding=padding)])

    def forward(self, x: Tensor, time: Tensor | None = None, context: Tensor | None = None) -> list[Tensor]:
        """Every map on the way, which the way up takes again; the last one goes on."""
        maps = []
        for index in range(len(self.resnets)):
            x, _ = self.step(index, x, time, context)
            maps.append(x)
        return maps + [downsample(x) for downsample in self.downsamplers]


class Up(Level):
    """A level on the way up, with a doubling behind it unless it is the last."""

    def __init__(self, *arguments: Any, last: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.upsamplers = nn.ModuleList([] if last else [Resample(self.width, scale=2)])

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Takes its maps off the end of `skips` -> the map, and what was added inside, by attentions and then blocks."""
        added, attended = [], []
        for index in range(len(self.resnets)):
            x, parts = self.step(index, torch.cat([x, skips.pop()], dim=1), time, context)
            added.append(parts[0])
            attended += parts[1:]
        for upsample in self.upsamplers:
            x = upsample(x)
        return x, torch.cat(attended + added, dim=1)


class Middle(nn.Module):
    """Between the two halves: residual, attention, residual."""

    def __init__(self, width: int, time: int, attention: nn.Module, eps: float = 1e-5) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(width, width, time, eps) for _ in range(2))
        self.attentions = nn.ModuleList([attention])

    def forward(self, x: Tensor, time: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        x, _ = self.resnets[0](x, time)
        x, _ = self.attentions[0](x, context)
        return self.resnets[1](x, time)[0]


class TimeEmbedding(nn.Module):
    """Cosines and sines of a timestep, then two linear layers -> (B, 4 * width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = width // 2
        self.linear_1, self.linear_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)

    def forward(self, timesteps: Tensor) -> Tensor:
        exponent = -log(10000) * torch.arange(self.pairs, dtype=torch.float32, device=timesteps.device) / self.pairs
        angles = timesteps[:, None].float() * exponent.exp()
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.linear_1.weight.dtype)
        return self.linear_2(functional.silu(self.linear_1(waves)))


class UNet(nn.Module):
    """The denoising network: four levels down (the first three attend to the prompt), a middle, four up."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        widths, heads = size.unet, size.heads
        time = 4 * widths[0]
        self.conv_in = nn.Conv2d(4, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0])
        levels = [(index, width, heads[index] if index < 3 else 0) for index, width in enumerate(widths)]
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips = [widths[0]]
        for index, width, number in levels:
            inputs = (widths[max(index - 1, 0)], width)
            self.down_blocks.append(Down(inputs, width, time, number, size.text, last=index == 3))
            skips += [width] * (2 if index == 3 else 3)
        self.mid_block = Middle(widths[3], time, Transformer(widths[3], heads[3], size.text))
        before = widths[3]
        for index, width, number in reversed(levels):
            inputs = tuple(one + skips.pop() for one in (before, width, width))
            self.up_blocks.append(Up(inputs, width, time, number, size.text, last=index == 0))
            before = width
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[0])
        self.conv_out = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Latents (B, 4, h, w), timesteps (B,), prompt (B, M, C) -> the prediction (B, 4, h, w) and four maps.

        The maps run from the largest (h, w) to the smallest (h/8, w/8). Each joins, on channels, what its up level's
        self-attentions put out (none in the smallest), and then what its residual blocks add to their shortcuts.
        """
        time = self.time_embedding(timesteps)
        x = self.conv_in(latents)
        skips = [x]
        for level in self.down_blocks:
            skips += level(skips[-1], time, context)
        x = self.mid_block(skips[-1], time, context)
        maps = []
        for level in self.up_blocks:
            x, one = level(x, skips, time, context)
            maps.append(one)
        return self.conv_out(functional.silu(self.conv_norm_out(x))), tuple(reversed(maps))
