"""The feature contract: a `Batch` goes in, four native maps and one vector come out, and nothing is trained."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
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
    metres. `location` (B, 2: longitude, latitude in degrees), `time` (B, days since 1970-01-01) and `area` (B, km2 of
    ground under one patch token; adapters that want it take it from `gsd` where absent) are NaN where unknown.
    `relative_gsd` (B,) is the GSD of the pixels given over that of the same scene at the model's size; where absent, the
    adapter that wants it takes it from the sizes. Built by tasks, never by adapters.
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
    relative_gsd: Tensor | None = None


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

    def neck(self, kind: str = "") -> nn.Module:
        """A fresh, trainable module of `card.necks` (the first by default): the stages -> `Features` for a head.

        It is no part of this module. Raises `UserError` for another name, and by models that have none.
        """
        raise UserError(f"{self.card.label} has no neck: a head takes its stages as they are")

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
        for part in (mode, *mode.beside):
            self._check_sensor(batch, part)
        sizes = {tuple(batch.images[part.sensor].shape[i] for i in (0, 2, 3)) for part in (mode, *mode.beside)}
        if len(sizes) > 1:
            raise UserError(f"{self.card.label} ({mode.name}) wants images of one number and size, got {sorted(sizes)}")

    def _check_sensor(self, batch: Batch, mode: Mode) -> None:
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
        side = {"any": image.shape[3], "square": image.shape[3], "fixed": mode.size}[mode.shape]
        if (mode.shape != "any" and image.shape[2] != image.shape[3]) or image.shape[3] != side:
            wanted = "square images" if mode.shape == "square" else f"images of {mode.size} x {mode.size} pixels"
            raise UserError(f"{name} ({mode.name}) wants {wanted}, got {tuple(image.shape[2:])}")
        if not bool(torch.isfinite(image).all()):
            raise UserError(
                f"{name} ({mode.name}) got NaN or infinite pixels; name the data set's no-data rule or drop the image"
            )

    def tapping(self, blocks: tuple[int, ...], bare: bool = False) -> "Backbone":
        """The same weights with the outputs of other `blocks` as stages; `bare`: without the final norm, where it is applied.

        Adapters read `card.blocks` and `card.build["norm_stages"]` when they encode, so a second card is all it takes.
        """
        build = {**self.card.build, "norm_stages": False} if bare else self.card.build
        other = copy(self)
        other.card = replace(self.card, blocks=blocks, build=build)
        return other

    def stochastic(self, batch_norm: bool = False) -> "Backbone":
        """Switch stochastic depth and dropout on. Without `batch_norm` its running statistics stay as they are: of a frozen
        backbone nothing may change."""
        self.train()
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(batch_norm)
        return self

    def freeze(self) -> "Backbone":
        """Switch to eval mode and stop all gradients."""
        return self.eval().requires_grad_(False)


def channels_last_to_first(stage: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return stage.permute(0, 3, 1, 2)


def tokens_to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens (B, rows x columns, C), row-major and without prefix tokens -> map (B, C, rows, columns)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def mode_for_channels(card: Card, channels: Mapping[str, int]) -> Mode:
    """Return the first mode of these sensors with so many bands (parity kits name inputs by shape, not by mode).

    A single sensor called `image` may be any one.
    """
    for mode in card.inputs:
        takes = {part.sensor: len(part.bands) for part in (mode, *mode.beside)}
        if "image" in channels and not mode.beside:
            takes = {"image": len(mode.bands)}
        if takes.keys() == channels.keys() and all(takes[name] in (0, number) for name, number in channels.items()):
            return mode
    wanted = " and ".join(f"{sensor} mode with {number} bands" for sensor, number in channels.items())
    known = ", ".join(f"{mode.name}: {len(mode.bands)} {mode.sensor}" for mode in card.inputs)
    raise UserError(f"{card.label} has no {wanted} ({known})")


def state_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by key: what an adapter may read off a checkpoint before it builds (window, patch size, stored grid)."""
    return {key: tuple(value.shape) for key, value in state.items()}
