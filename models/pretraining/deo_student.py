"""The networks that DEO trains: the adapter's own network, so that its features are the student's, and the heads."""

from dataclasses import replace
from typing import NamedTuple

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

import models
from models.common.backbone import Batch
from models.common.tokens import VitShape, tokens_to_map
from models.deo import BANDS, RGB
from models.networks.deo import DeoSwin, swin_card
from models.networks.vit import PlainViT
from models.pretraining.deo_recipe import DeoRecipe
from models.pretraining.heads import ProjectionHead

STEMS = {"swin": ("conv_ms", "conv_rgb"), "vit": ("patch_embed_ms", "patch_embed_rgb")}
MIDDLE, LAST = 5, 11  # the blocks of a ViT student whose patches are distilled


class Passed(NamedTuple):
    """One pass: `vector` (N, D) after the final norm; `mid` (N, h, w, C) and `late` (N, H, W, D) without it."""

    vector: Tensor
    mid: Tensor
    late: Tensor


class SwinStudent(DeoSwin):
    """Swin with both stems: stages 3 and 4 are the maps, the mean of the normed last one the vector."""

    def __init__(self, recipe: DeoRecipe) -> None:
        shape = recipe.swin
        card = swin_card(models.card("deo"), shape.width, shape.depths, shape.heads, shape.drop_path)
        super().__init__(card, recipe.window)

    def through(self, image: Tensor) -> Passed:
        """Images (N, 10 or 3, H, W), each through the stem of its number of bands."""
        stages = self.tap(image)
        return Passed(self.norm(stages[3]).mean(dim=(1, 2)), stages[2], stages[3])


class VitStudent(PlainViT):
    """ViT-B with both stems: blocks 5 and 11 are the maps, the normed class token the vector."""

    def __init__(self, recipe: DeoRecipe) -> None:
        card = replace(models.card("deo:vit"), blocks=(MIDDLE, LAST))
        shape = VitShape(recipe.patch, recipe.global_size // recipe.patch)
        super().__init__(card, shape, stems={"patch_embed_ms": len(BANDS), "patch_embed_rgb": len(RGB)})
        nn.init.trunc_normal_(self.cls_token, std=0.02)  # as DINO's, where timm's starts at zero
        for index, block in enumerate(self.blocks):
            rate = recipe.drop_path * index / (len(self.blocks) - 1)
            for part in ("drop_path1", "drop_path2"):
                block.add_module(part, DropPath(rate))

    def through(self, image: Tensor) -> Passed:
        """Images (N, 10 or 3, H, W), each through the stem of its number of bands."""
        tokens, grid = self.embed(Batch({"optical": image}, "ms" if image.shape[1] == len(BANDS) else "rgb"))
        mid, late = self.tap(tokens)
        maps = [tokens_to_map(output[:, 1:], grid).permute(0, 2, 3, 1) for output in (mid, late)]
        return Passed(self.norm(late[:, 0]), *maps)


def network(recipe: DeoRecipe) -> SwinStudent | VitStudent:
    """A fresh network of the recipe, trainable and in train mode."""
    return VitStudent(recipe) if recipe.student == "vit_b" else SwinStudent(recipe)


class MsTeacher(nn.Module):
    """The EMA teacher: a network without the RGB stem, and the head of the MS branch."""

    def __init__(self, recipe: DeoRecipe, student: "DeoStudent") -> None:
        super().__init__()
        self.backbone = network(recipe)
        delattr(self.backbone, student.rgb_stem)
        self.head_ms = student.make_head_ms(recipe)
        own = self.state_dict()
        self.load_state_dict({key: value for key, value in student.state_dict().items() if key in own})
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 10, H, W) -> unit vectors (N, d)."""
        return self.head_ms(self.backbone.through(image).vector)


class DeoStudent(nn.Module):
    """The student with its heads: `head_ms`, and for a teacher of the optical branch `cls_head` and two patch heads."""

    def __init__(self, recipe: DeoRecipe, vector_width: int, map_width: int) -> None:
        super().__init__()
        self.backbone = network(recipe)
        self.ms_stem, self.rgb_stem = STEMS["vit" if recipe.student == "vit_b" else "swin"]
        width, middle = self.backbone.card.width, self.backbone.card.channels[2]
        self.head_ms = self.make_head_ms(recipe)
        if recipe.distils:
            self.cls_head = ProjectionHead(width, recipe.head_hidden, vector_width)
        if recipe.distill == "cls+patch":
            self.patch_head_late = ProjectionHead(width, recipe.head_hidden, map_width)
            self.patch_head_mid = ProjectionHead(middle, recipe.head_hidden, map_width)
        # The stem of RGB is part of every checkpoint; where no RGB passes, nothing trains it.
        self.trains_rgb = recipe.distils and recipe.optical_path == "separate"
        self.backbone.get_submodule(self.rgb_stem).requires_grad_(self.trains_rgb)

    def make_head_ms(self, recipe: DeoRecipe) -> ProjectionHead:
        """A fresh head of the MS branch, for student or teacher."""
        return ProjectionHead(self.backbone.card.width, recipe.head_hidden, recipe.head_width)

    def official(self) -> dict[str, Tensor]:
        """The state dict by the keys of the release's wrapper: stems and heads at the top, the rest below `backbone.`.

        An RGB stem that was never trained is that of the MS branch for three bands, so that an RGB image is seen as a
        multispectral one whose other bands have their mean.
        """
        state = {}
        for key, value in self.state_dict().items():
            bare = key.removeprefix("backbone.")
            state[bare if bare.startswith((self.ms_stem, self.rgb_stem)) else key] = value.detach()
        if not self.trains_rgb:
            for key in [key for key in state if key.startswith(self.ms_stem)]:
                value = state[key]
                state[key.replace(self.ms_stem, self.rgb_stem)] = value[:, :3] if value.ndim == 4 else value
        return state


@torch.no_grad()
def follow(teacher: MsTeacher, student: DeoStudent, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, parameters only."""
    source = dict(student.named_parameters())
    for name, parameter in teacher.named_parameters():
        parameter.lerp_(source[name], 1 - momentum)
