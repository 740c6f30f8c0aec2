"""X-STARS (Marsocci and Audebert, 2024, arXiv:2405.09922): DINO on several sensors, and MSAD between them.

Student and EMA teacher are an adapter's backbone with DINO's head on it, so that the checkpoint goes back into the adapter
`xstars`, which reads the teacher, as DINO evaluates it (the student where a file has no teacher).
"""

from copy import deepcopy
from itertools import combinations
from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from models import xstars as adapter
from models.common.backbone import Backbone, Batch
from models.common.errors import UserError
from models.common.weights import load
from models.networks.resnet import ResNet50
from models.networks.vit import PlainViT
from models.pretraining.builder import ParameterGroup, Pretraining, Progress, Sample
from models.pretraining.dino import DinoHead, DinoLoss, follow, momentum, teacher_temperature
from models.pretraining.msad import LinearProjectors, ReleasedAlignment, msad, reduced
from models.pretraining.xstars_recipe import XstarsRecipe
from models.pretraining.xstars_views import SCENE, normalised, xstars_views


class XstarsPretraining(Pretraining):
    """The student, the teacher that follows it, MSAD's projectors, and the frozen domain teacher of the continual mode.

    `initial` is a backbone (`models.build`) whose weights student, teacher and domain teacher start from: any of the
    recipe's architecture, from X-STARS, MAE or Scale-MAE for ViTs. The continual mode needs one.
    """

    def __init__(self, recipe: XstarsRecipe, initial: Backbone | None = None) -> None:
        super().__init__()
        if recipe.mode == "continual" and initial is None:
            raise UserError("continual pretraining goes on from weights: name those of the source sensor")
        self.recipe = recipe
        self.student = HeadedBackbone(recipe, initial)
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.domain_teacher: Backbone | None = None
        if recipe.mode == "continual" and recipe.msad != "off":
            self.domain_teacher = deepcopy(self.teacher.backbone)
            if recipe.domain_teacher_drop_path:
                add_drop_path(self.domain_teacher, recipe.drop_path)
        add_drop_path(self.student.backbone, recipe.drop_path)
        self.dino = DinoLoss(recipe.prototypes, recipe.student_temperature, recipe.centre_momentum)
        width = self.student.backbone.card.width
        self.projectors: LinearProjectors | ReleasedAlignment | None = None
        if recipe.msad == "paper":
            names = ("domain", "student") if recipe.mode == "continual" else recipe.sensors
            self.projectors = LinearProjectors(names, width, recipe.projection_width)
        elif recipe.msad == "released":
            self.projectors = ReleasedAlignment(
                width,
                recipe.projection_width,
                recipe.projection_dropout,
                recipe.msad_temperature,
                recipe.label_smoothing,
            )
        if self.projectors is not None and not recipe.msad_gradient:
            self.projectors.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "XstarsPretraining":
        """As ever, but that the domain teacher stays in eval mode unless the recipe leaves it in training, as the code."""
        super().train(mode)
        if self.domain_teacher is not None:
            self.domain_teacher.train(mode and self.recipe.domain_teacher_drop_path)
        return self

    def views(self, sample: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        """Crops and scenes of a sample of co-located RGB images (3, H, W) in 0..1 by sensor: see `xstars_views`."""
        return xstars_views(self.recipe, sample, generator)

    def forward(self, views: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        """Stacked views -> `dino`, and `msad` times lambda (equation 5: L = L_DINO + lambda L_MSAD) unless it is off.

        `global` (B, 2, 3, S, S), `local` (B, n, 3, s, s), `scene.<sensor>` (B, 3, S, S).
        """
        recipe = self.recipe
        crops = [views[name].transpose(0, 1).flatten(0, 1) for name in ("global", "local") if name in views]
        images = len(views["global"])
        with torch.no_grad():
            targets = self.teacher(crops[:1]).unflatten(0, (2, images))
        logits = self.student(crops).unflatten(0, (-1, images))
        temperature = teacher_temperature(
            progress.step // progress.epoch_steps,
            recipe.teacher_temperature_start,
            recipe.teacher_temperature,
            recipe.teacher_temperature_warmup,
        )
        losses = {"dino": self.dino(logits, targets, temperature)}
        if recipe.msad != "off":
            with torch.set_grad_enabled(torch.is_grad_enabled() and recipe.msad_gradient):
                losses["msad"] = recipe.msad_weight * self.alignment(views)
        return losses

    def alignment(self, views: dict[str, Tensor]) -> Tensor:
        """MSAD of the full scenes, without its coefficient: over all pairs of sensors, or domain teacher and student.

        A group of images at a time, the mean over `recipe.groups`.
        """
        encoded = self.scene_tokens(views)
        pairs = []
        for first, second in combinations(encoded, 2):
            parts = [encoded[name].chunk(self.recipe.groups, dim=1) for name in (first, second)]
            losses = [self.align(first, one, second, two) for one, two in zip(*parts, strict=True)]
            pairs.append(torch.stack(losses).mean())
        return reduced(pairs, self.recipe.pair_reduction)

    def scene_tokens(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tokens (T, B, C) by sensor, all the student's, or by network: `domain` first, then `student`."""
        recipe, student = self.recipe, self.student.backbone
        if self.domain_teacher is None:
            seen = [(name, student, name) for name in recipe.sensors]
        else:
            ends = (recipe.source, recipe.target)
            domain, own = ends if recipe.domain_teacher_sees == "source" else ends[::-1]
            seen = [("domain", self.domain_teacher, domain), ("student", student, own)]
        return {key: self.tokens_of(network, views[SCENE + sensor]) for key, network, sensor in seen}

    def tokens_of(self, network: Backbone, images: Tensor) -> Tensor:
        """What is aligned, (T, B, C): all tokens with the class token, as the code; else the global one, T = 1."""
        tokens, vector = encode(network, images)
        return tokens.transpose(0, 1) if self.recipe.patchwise else vector[None]

    def align(self, first: str, one: Tensor, second: str, two: Tensor) -> Tensor:
        """MSAD of one pair of tokens (T, N, C), in the recipe's form."""
        recipe, projectors = self.recipe, self.projectors
        if isinstance(projectors, LinearProjectors):
            one, two = projectors[first](one), projectors[second](two)
            return msad(one, two, recipe.msad_temperature, recipe.label_smoothing, recipe.sum_inside_log)
        assert projectors is not None
        return projectors(projectors.shared(one), projectors.shared(two))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Student and trained projectors; no decay on biases and vectors; the last layer waits `freeze_last_layer` epochs."""
        trained = [(name, weights) for name, weights in self.named_parameters() if weights.requires_grad]
        last = [pair for pair in trained if ".last_layer." in pair[0]]
        others = [pair for pair in trained if ".last_layer." not in pair[0]]
        return [
            ParameterGroup([pair for pair in others if pair[1].ndim > 1], decay=True),
            ParameterGroup([pair for pair in others if pair[1].ndim == 1], decay=False),
            ParameterGroup(last, decay=True, frozen_epochs=self.recipe.freeze_last_layer),
        ]

    def after_step(self, progress: Progress) -> None:
        """The teacher follows the student, and the centre the teacher's logits."""
        follow(self.teacher, self.student, momentum(progress.step, progress.total, self.recipe.ema))
        self.dino.update_centre()

    def checkpoint(self) -> dict[str, Any]:
        """DINO's container: `student` (its keys begin with `module.`), `teacher`, and the centre in `dino_loss`."""
        return {
            "student": {f"module.{name}": value.detach().cpu() for name, value in self.student.state_dict().items()},
            "teacher": {name: value.detach().cpu() for name, value in self.teacher.state_dict().items()},
            "dino_loss": {name: value.detach().cpu() for name, value in self.dino.state_dict().items()},
        }

    @torch.no_grad()
    def probe_features(self, images: Tensor, sensor: str) -> Tensor:
        """The teacher's global vectors (B, C) of RGB images (B, 3, H, W) in 0..1, z-scored as its crops are."""
        recipe, network = self.recipe, self.teacher.backbone
        statistics = recipe.sensor(sensor) if recipe.crop_statistics == "sensor" else recipe.joint()
        before = network.training
        network.eval()
        try:
            return encode(network, normalised(images, statistics))[1]
        finally:
            network.train(before)


class HeadedBackbone(nn.Module):
    """A backbone with DINO's head; keys are DINO's (`backbone.`, `head.`)."""

    def __init__(self, recipe: XstarsRecipe, initial: Backbone | None) -> None:
        super().__init__()
        self.backbone = backbone(recipe, initial)
        self.head = DinoHead(
            self.backbone.card.width, recipe.head_width, recipe.bottleneck, recipe.prototypes, recipe.norm_last_layer
        )

    def forward(self, crops: list[Tensor]) -> Tensor:
        """Crops (n_i, 3, S_i, S_i), a tensor for each size -> logits (sum of n_i, K)."""
        return self.head(torch.cat([encode(self.backbone, images)[1] for images in crops]))


def backbone(recipe: XstarsRecipe, initial: Backbone | None = None) -> Backbone:
    """The network of the recipe, trainable, initialised as DINO's or with the weights of `initial`.

    Raises `UserError` where these are of another network.
    """
    vit = recipe.network
    card = adapter.CARD.choose_variant(recipe.adapter.partition(":")[2])
    if vit is None:
        network = adapter.build(card, {})
    else:
        card = adapter.sized(card, vit.width, vit.depth, vit.patch, recipe.position_grid)
        network = adapter.build(card, {})
        initialise(network)
    if initial is not None:
        adopt(network, initial)
    return network.requires_grad_(True).train()


def initialise(network: Backbone) -> None:
    """DINO's initial values of a ViT: normal with deviation 0.02 in linear layers, class token and positions."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for name in ("cls_token", "pos_embed"):
        nn.init.trunc_normal_(network.get_parameter(name), std=0.02)


def adopt(network: Backbone, initial: Backbone) -> None:
    """Load the weights of another adapter's backbone.

    Its positions become the table that is trained on, even where they were computed: those that it gives to an image of
    its pretraining size, so that at this size the two networks have the same features. (The release's `load_model` finds
    none of its keys in an MAE's file, and its `strict=False` says nothing of it; this is not imitated.)
    """
    state = dict(initial.state_dict())
    if isinstance(network, PlainViT):
        if not isinstance(initial, PlainViT):
            raise UserError(f"the weights of {initial.card.label} are no ViT's, and {network.card.label} is one")
        ours, theirs = network.card.build["heads"], initial.card.build["heads"]
        if ours != theirs:
            raise UserError(f"{initial.card.label} has {theirs} attention heads, the network to be trained {ours}")
        mode = next((mode for mode in initial.card.inputs if len(mode.bands) == 3), None)
        if mode is None:
            raise UserError(f"{initial.card.label} has no RGB input to start from")
        side = mode.size // initial.patch
        blank = Batch({"optical": torch.zeros(1, 3, mode.size, mode.size)}, mode.name)
        state["pos_embed"] = initial.positions(blank, (side, side)).detach()
        if state["pos_embed"].shape != network.pos_embed.shape:
            network.pos_embed = nn.Parameter(torch.empty_like(state["pos_embed"]))
    load(network, state)


def add_drop_path(network: Backbone, rate: float) -> None:
    """Stochastic depth for the blocks of a ViT, from 0 at the first to `rate` at the last, as DINO's; a ResNet has none."""
    if not isinstance(network, PlainViT):
        return
    for block, drop in zip(network.blocks, torch.linspace(0, rate, len(network.blocks)).tolist(), strict=True):
        if drop:
            block.drop_path1, block.drop_path2 = DropPath(drop), DropPath(drop)


def encode(network: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens of the last layer (B, T, C), and the global vector (B, C), which DINO's head gets.

    A ViT: normed outputs, class token first, and that token. A ResNet-50: the pixels of its last map (49 at 224 pixels; the
    paper does not say how it takes tokens from one) and their mean.
    """
    batch = Batch({"optical": images}, network.card.inputs[0].name)
    if isinstance(network, PlainViT):
        tokens, _ = network.embed(batch)
        for block in network.blocks:
            tokens = block(tokens)
        tokens = network.norm(tokens)
        return tokens, tokens[:, 0]
    assert isinstance(network, ResNet50)
    stages, vectors = network.encode(batch)
    return stages[-1].flatten(2).transpose(1, 2), vectors["mean"]
