"""The feature contract: a `Batch` goes in, four native maps and one vector come out, and nothing is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.common.card import Card, Mode
from models.common.errors import UserError, choose


@dataclass
class Batch:
    """Images that are already selected, rendered, resized and normalised for one input mode.

    `images`: per sensor ("optical", "sar", ...) a float tensor (B, C, H, W). `bands`, `wavelengths` (nm) and
    `bandwidths` (nm) run along C; NaN where unknown. `gsd` is the ground sampling distance of the pixels given, in
    metres. `location` (B, 2: longitude, latitude in degrees), `time` (B, days since 1970-01-01) and `area` (B, km2) are
    NaN where unknown. Built by tasks, never by adapters.
    """

    images: dict[str, Tensor]
    mode: str
    bands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    wavelengths: dict[str, tuple[float, ...]] = field(default_factory=dict)
    bandwidths: dict[str, tuple[float, ...]] = field(default_factory=dict)
    gsd: float = float("nan")
    location: Tensor | None = None
    time: Tensor | None = None
    area: Tensor | None = None


class Features(NamedTuple):
    """`stages`: four maps (B, C_i, H_i, W_i), shallow to deep, at native resolution; `pooled`: (B, D)."""

    stages: tuple[Tensor, ...]
    pooled: Tensor


class Backbone(nn.Module):
    """A model behind the feature contract. Adapters subclass it and write `encode`; the door is guarded here.

    The keys of `state_dict()` are those of the official checkpoint wherever the architecture allows it; where they are
    not, `convert` maps official keys to ours. Every backbone is built in eval mode and frozen. `weights_digest` says
    which weights it holds: the sha256 of their file, `random-<seed>`, or `none` for a model without weights.
    """

    weights_digest: str = ""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the four stages and every pooled vector (B, D) by kind: always `default`, and `raw`, `mean`, `cls` if there."""
        raise NotImplementedError(type(self).__name__)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map a flat official state dict (container and prefixes already stripped) to the keys of this module."""
        return state

    def forward(self, batch: Batch, pooled: str = "default") -> Features:
        """Check the batch, encode it, pick the pooled vector. Raises `UserError` on input the mode does not allow."""
        self.check(batch)
        stages, vectors = self.encode(batch)
        return Features(stages, vectors[choose(f"pooled vector of {self.card.label}", pooled, vectors)])

    def check(self, batch: Batch) -> None:
        """Refuse wrong sensors, ranks, dtypes, channel counts, sizes and non-finite values, each with a sentence."""
        mode = self.card.mode(batch.mode)
        name = self.card.label
        if mode.sensor not in batch.images:
            raise UserError(
                f"{name} ({mode.name}) wants sensor {mode.sensor!r}; the batch holds {', '.join(batch.images)}"
            )
        image = batch.images[mode.sensor]
        if image.ndim != 4 or not image.is_floating_point():
            raise UserError(f"{name} wants float images (B, C, H, W), got {image.dtype} of shape {tuple(image.shape)}")
        if mode.bands and image.shape[1] != len(mode.bands):
            raise UserError(
                f"{name} ({mode.name}) wants {len(mode.bands)} bands ({', '.join(mode.bands)}), got {image.shape[1]}"
            )
        if image.shape[2] % mode.multiple or image.shape[3] % mode.multiple or 0 in image.shape:
            raise UserError(
                f"{name} ({mode.name}) wants height and width divisible by {mode.multiple}, got {tuple(image.shape[2:])}"
            )
        if not bool(torch.isfinite(image).all()):
            raise UserError(
                f"{name} ({mode.name}) got NaN or infinite pixels; name the data set's no-data rule or drop the image"
            )

    def freeze(self) -> "Backbone":
        """Switch to eval mode and stop all gradients."""
        return self.eval().requires_grad_(False)


def channels_last_to_first(stage: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return stage.permute(0, 3, 1, 2)


def tokens_to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens (B, rows x columns, C), row-major and without prefix tokens -> map (B, C, rows, columns)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def mode_for_channels(card: Card, channels: int, sensor: str = "optical") -> Mode:
    """Return the first mode of `sensor` with that many bands (parity kits name inputs by shape, not by mode)."""
    for mode in card.inputs:
        if mode.sensor == sensor and len(mode.bands) in (0, channels):
            return mode
    known = ", ".join(f"{mode.name}: {len(mode.bands)} {mode.sensor}" for mode in card.inputs)
    raise UserError(f"{card.label} has no {sensor} mode with {channels} bands ({known})")


def state_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by key: what an adapter may read off a checkpoint before it builds (window, patch size, stored grid)."""
    return {key: tuple(value.shape) for key, value in state.items()}
