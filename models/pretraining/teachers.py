"""Optical teachers: a frozen vision foundation model, any of our adapters, as a class vector and two patch maps.

DEO distils DINOv3, DINOv2 or RADIOv2.5: blocks 8 and 11 of a ViT-B, 15 and 23 of a ViT-L, with the final norm where the
model has one (release: `distillation_features.py`).
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import models
from models.common.backbone import Backbone, Batch
from models.common.card import Divide, ZScore
from models.common.errors import UserError, choose, one_line
from models.deo import MEAN, STD
from models.pretraining.views import normalise

TEACHERS = ("dinov3", "dinov3:sat", "dinov2", "radio")
BLOCKS = {12: (8, 11), 24: (15, 23)}  # middle and late, by depth


class Optical(NamedTuple):
    """What is distilled: `vector` (N, D), the class token or RADIO's summary; `late` and `mid` (N, C, rows, columns)."""

    vector: Tensor
    late: Tensor
    mid: Tensor


class OpticalTeacher(nn.Module):
    """A frozen backbone for RGB that stays in eval mode; `width` is that of its vector, `channels` that of its maps."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        card = backbone.card
        depth = card.build.get("depth", 0)
        if depth not in BLOCKS:
            raise UserError(
                f"{card.label} cannot be an optical teacher: it has no {' or '.join(map(str, BLOCKS))} blocks"
            )
        self.mode = card.mode("rgb")
        self.backbone = backbone.tapping(BLOCKS[depth]).freeze()
        self.width, self.channels = card.width, card.channels[-1]

    def train(self, mode: bool = True) -> "OpticalTeacher":
        """Stay in eval mode, whatever the student does."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def forward(self, rgb: Tensor, own_statistics: bool = False) -> Optical:
        """RGB (N, 3, H, W), normalised as DEO's student gets it -> `Optical`.

        The release hands it on as it is; `own_statistics` gives the teacher what its own authors normalise, of the
        values in 0..1 that the student's were made from.
        """
        if own_statistics:
            rgb = self.own(rgb)
        stages, vectors = self.backbone.encode(Batch({"optical": rgb}, self.mode.name))
        mid, late = stages
        return Optical(vectors["default"], late, mid)

    def own(self, rgb: Tensor) -> Tensor:
        """RGB in DEO's normalisation -> in the teacher's own, by the steps of its card."""
        scale = rgb.new_tensor(STD[:3])[:, None, None]
        image = (rgb * scale + rgb.new_tensor(MEAN[:3])[:, None, None]) * 255
        for step in self.mode.normalisation:
            match step:
                case Divide(by=by):
                    image = image / by
                case ZScore(mean=mean, std=std):
                    image = normalise(image, mean, std)
                case _:
                    raise UserError(
                        f"{self.backbone.card.label} normalises in a way that a teacher's input cannot follow"
                    )
        return image


def optical_teacher(name: str, weights: str = "official", cache: Path | None = None) -> OpticalTeacher | None:
    """The teacher `name` (of `TEACHERS`) with `official` weights or those of a file; None for `none`.

    `dinov3:sat` takes any DINOv3 ViT-L/16, also the one of web images. Raises `UserError` where the weights are absent,
    saying which file is wanted, or are of another model.
    """
    if name == "none":
        return None
    choose("optical teacher", name, ("none", *TEACHERS))
    try:
        return OpticalTeacher(models.build(name, weights, cache))
    except UserError as error:
        card = models.card(name)
        origin = card.checkpoint.url or card.checkpoint.where
        raise UserError(
            f"no optical teacher {name}: {one_line(error)}; give `--teacher-weights PATH` of {card.checkpoint.file} "
            f"({origin}), or train without one (`--teacher none`)"
        ) from error
