"""SatDiFuser's learned half: a fuser makes one map per scale of all steps and layers, and is trained with the head.

`gw` weighs layers and steps by one number each, `lw` by one per pixel, `moe` mixes eight experts by what they see.
Names of the state dicts are those of `decoder_net` in the authors' checkpoints, without its head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common.backbone import Features

Layers = tuple[tuple[int, ...], ...]  # widths of the tapped layers, per scale
WIDTH = 384
GROUPS = 32
WARM_UP = 300


class NormedConv(nn.Conv2d):
    """A convolution without bias and the group norm behind it, initialised as detectron2 does."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.GroupNorm(GROUPS, outputs)

    def forward(self, input: Tensor) -> Tensor:
        return self.norm(super().forward(input))


class Bottleneck(nn.Module):
    """ResNet's bottleneck block from `inputs` to `WIDTH` channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.shortcut = NormedConv(inputs, WIDTH, 1) if inputs != WIDTH else None
        self.conv1 = NormedConv(inputs, WIDTH // 4, 1)
        self.conv2 = NormedConv(WIDTH // 4, WIDTH // 4, 3)
        self.conv3 = NormedConv(WIDTH // 4, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        added = self.conv3(functional.relu(self.conv2(functional.relu(self.conv1(x)))))
        return functional.relu(added + (x if self.shortcut is None else self.shortcut(x)))


class Fuser(nn.Module):
    """What the fusers share: stages apart into steps, four fused maps (B, 384, H, W), and their sum's mean (B, 384)."""

    def __init__(self, layers: Layers, steps: int) -> None:
        super().__init__()
        self.layers, self.steps = layers, steps

    def fuse(self, scale: int, steps: Sequence[Tensor]) -> Tensor:
        """The maps (B, C, H, W) of one scale, one per step from clean to noisy -> the fused map (B, 384, H, W)."""
        raise NotImplementedError(type(self).__name__)

    def forward(self, stages: Sequence[Tensor]) -> Features:
        """The backbone's stages (B, steps * C_i, H_i, W_i) -> fused maps, and the vector of the authors' linear head."""
        fused = [self.fuse(scale, stage.chunk(self.steps, dim=1)) for scale, stage in enumerate(stages)]
        size = fused[0].shape[2:]
        total = sum(
            (functional.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in fused[1:]),
            start=fused[0],
        )
        return Features(tuple(fused), total.mean(dim=(2, 3)))


class PerLayer(Fuser):
    """One bottleneck per layer, the same for all steps."""

    def __init__(self, layers: Layers, steps: int) -> None:
        super().__init__(layers, steps)
        widths = [width for scale in layers for width in scale]
        self.bottleneck_layers = nn.ModuleList(nn.Sequential(Bottleneck(width)) for width in widths)

    def first(self, scale: int) -> int:
        """The number of the scale's first layer."""
        return sum(len(one) for one in self.layers[:scale])

    def project(self, scale: int, steps: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """The layers (B, C_l, H, W) of one scale by step -> the bottlenecks' outputs (B, 384, H, W) by step and layer."""
        first = self.first(scale)
        return [[self.bottleneck_layers[first + index](one) for index, one in enumerate(step)] for step in steps]


class GlobalWeights(PerLayer):
    """`gw`: a softmax over all layers of all scales and steps together."""

    def __init__(self, layers: Layers, steps: int) -> None:
        super().__init__(layers, steps)
        self.mixing_weights = nn.Parameter(torch.ones(steps * len(self.bottleneck_layers)))

    def fuse(self, scale: int, steps: Sequence[Tensor]) -> Tensor:
        weights = self.mixing_weights.softmax(dim=0).unflatten(0, (self.steps, -1))
        parts = [step.split(self.layers[scale], dim=1) for step in steps]
        fused = torch.zeros((), device=weights.device)
        for step, maps in enumerate(self.project(scale, parts)):
            for index, one in enumerate(maps, self.first(scale)):
                fused = fused + weights[step, index] * one
        return fused


class Gate(nn.Module):
    """Weights per pixel for K maps, from their mean."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.gate_conv = nn.Conv2d(WIDTH, maps, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, 384, H, W) -> (B, 384, H, W)."""
        weights = self.gate_conv(maps.mean(dim=1)).softmax(dim=1)
        return (weights[:, :, None] * maps).sum(dim=1)


class LocalWeights(PerLayer):
    """`lw`: per scale and pixel a softmax over the layers of all steps.

    Every bottleneck of a scale is given the channels of the scale's first layer: the authors' loop over the layers
    never moves on. It is kept as they have it.
    """

    def __init__(self, layers: Layers, steps: int) -> None:
        super().__init__(layers, steps)
        self.gate_modules = nn.ModuleList(Gate(steps * len(widths)) for widths in layers)

    def fuse(self, scale: int, steps: Sequence[Tensor]) -> Tensor:
        widths = self.layers[scale]
        parts = [[step[:, :width] for width in widths] for step in steps]
        maps = [one for of_step in self.project(scale, parts) for one in of_step]
        return self.gate_modules[scale](torch.stack(maps, dim=1))


class Mixture(nn.Module):
    """Eight bottlenecks over all channels of a scale: all of them weighted while `dense`, afterwards the best two."""

    def __init__(self, inputs: int, experts: int = 8, chosen: int = 2) -> None:
        super().__init__()
        self.chosen = chosen
        self.experts = nn.ModuleList(nn.Sequential(Bottleneck(inputs)) for _ in range(experts))
        gate = nn.Conv2d(inputs, experts, 3, padding=1)
        self.gate_network = nn.Sequential(gate, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor, dense: bool) -> Tensor:
        """(B, C, H, W) -> (B, 384, H, W)."""
        logits = self.gate_network(x) / self.temperature
        if not dense:
            best = logits.topk(self.chosen, dim=1)
            logits = torch.full_like(logits, float("-inf")).scatter(1, best.indices, best.values)
        weights = logits.softmax(dim=1)
        fused = x.new_zeros((len(x), WIDTH, *x.shape[2:]))
        for index, expert in enumerate(self.experts):
            asked = weights[:, index].nonzero().flatten()
            if len(asked):
                fused = fused.index_add(0, asked, weights[asked, index, None, None, None] * expert(x[asked]))
        return fused


class MixtureOfExperts(Fuser):
    """`moe`: a mixture per scale, averaged over the steps.

    All experts are used in the first `WARM_UP` calls of a mixture while training. The authors count calls in evaluation
    too, so that a network becomes another by being looked at, and forget the count on saving; here evaluation leaves
    `calls` alone, and it is saved nowhere either: a freshly loaded fuser uses all experts.
    """

    calls: Tensor

    def __init__(self, layers: Layers, steps: int) -> None:
        super().__init__(layers, steps)
        self.scale_moes = nn.ModuleList(Mixture(sum(widths)) for widths in layers)
        self.register_buffer("calls", torch.zeros(len(layers), dtype=torch.long), persistent=False)

    def fuse(self, scale: int, steps: Sequence[Tensor]) -> Tensor:
        fused = []
        for step in steps:
            self.calls[scale] += self.training
            fused.append(self.scale_moes[scale](step, dense=int(self.calls[scale]) < WARM_UP))
        return torch.stack(fused).mean(dim=0)


FUSERS: dict[str, type[Fuser]] = {"gw": GlobalWeights, "lw": LocalWeights, "moe": MixtureOfExperts}
