"""DEO's pretraining (Wolf et al., CVPR 2026, arXiv:2602.19863): one student, an EMA teacher, an optical teacher.

The student learns from its own moving average on all ten bands (cosine between views, and a coding rate that keeps
features from falling together), and from a frozen foundation model on red, green and blue. The student sees the ten
bands and RGB in two passes through one network with a stem each.
"""

from collections.abc import Mapping
from math import cos, pi
from typing import Any

import torch
from torch import Tensor

from models.common.backbone import Backbone, Batch
from models.common.errors import UserError
from models.deo import MEAN, STD
from models.pretraining import deo_views
from models.pretraining.builder import ParameterGroup, Pretraining, Progress, Sample
from models.pretraining.deo_recipe import DeoRecipe
from models.pretraining.deo_student import DeoStudent, MsTeacher, Passed, follow
from models.pretraining.losses import coding_rate, cross_view_cosine, patch_cosine
from models.pretraining.teachers import OpticalTeacher
from models.pretraining.views import normalise


class DeoPretraining(Pretraining):
    """Student, heads, both teachers and the losses of a recipe.

    `teacher` is an optical teacher, or an adapter's backbone that becomes one, and None for a recipe that distils
    nothing. It is kept out of `state_dict`, so that a training that resumes is given it again. Raises `UserError` where
    recipe and teacher do not go together.
    """

    def __init__(self, recipe: DeoRecipe, teacher: OpticalTeacher | Backbone | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        if recipe.distils == (teacher is None):
            missing = f"distill={recipe.distill} needs the optical teacher {recipe.teacher}"
            raise UserError(missing if recipe.distils else "distill=none has no use for an optical teacher")
        optical = OpticalTeacher(teacher) if isinstance(teacher, Backbone) else teacher
        if optical and recipe.global_size % optical.mode.multiple:
            raise UserError(
                f"global_size must be a multiple of {optical.mode.multiple} pixels for {recipe.teacher}, got "
                f"{recipe.global_size}"
            )
        self.student = DeoStudent(recipe, optical.width if optical else 0, optical.channels if optical else 0)
        self.teacher = MsTeacher(recipe, self.student)
        self.optical = optical
        self.register_state_dict_post_hook(leave_out_optical)
        self.register_load_state_dict_pre_hook(keep_optical)
        self.train()

    def train(self, mode: bool = True) -> "DeoPretraining":
        """The MS teacher has stochastic depth only where the recipe says so; the optical teacher never trains."""
        super().train(mode)
        self.teacher.train(mode and self.recipe.teacher_drop_path)
        return self

    def views(self, sample: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        """See `deo_views.views`."""
        return deo_views.views(self.recipe, sample, generator)

    def forward(self, views: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        """Views as `deo_views.views` names them, with B in front -> losses by name; their sum is to be made small.

        B times the processes, times the parts whose gradients are accumulated, is the recipe's `batch`.

        `compression` = -C_MS and `coding_rate` = -R of the MS branch; `class`, `patch_late`, `patch_mid` = -C of the
        optical one; each times its coefficient.
        """
        recipe, optical = self.recipe, self.optical
        images = {name: images.transpose(0, 1).flatten(0, 1) for name, images in views.items()}  # all of view 0 first
        ms = [images[name] for name in ("global_ms", "local_ms") if name in images]
        with torch.no_grad():
            ema = by_view(self.teacher(ms[0]), recipe.global_views)
        passes = [self.student.backbone.through(image) for image in ms]
        features = by_view(self.student.head_ms(vectors(passes)), self.count)
        expanded = features[: recipe.global_views]
        if recipe.expansion == "mean":
            expanded = (expanded + ema) / 2
        rate = coding_rate(
            expanded, recipe.eps, recipe.batch, recipe.groups, recipe.covariance == "all_reduced", recipe.balancing
        )
        losses = {
            "compression": -recipe.compression * cross_view_cosine(ema, features),
            "coding_rate": -recipe.gamma * rate,
        }
        if optical is not None:
            rgb = [images[name] for name in ("global_rgb", "local_rgb") if name in images] or [one[:, :3] for one in ms]
            if recipe.optical_path == "separate":
                passes = [self.student.backbone.through(image) for image in rgb]
            losses |= self.distillation(passes, optical, rgb[0])
        return losses

    def distillation(self, passes: list[Passed], optical: OpticalTeacher, global_rgb: Tensor) -> dict[str, Tensor]:
        """The losses of the optical branch, of the student's passes over global and local views.

        Class vectors of all views against the teacher's of the other global views; maps of the same global view.
        """
        recipe, student = self.recipe, self.student
        taught = optical(global_rgb, own_statistics=recipe.teacher_input == "own")
        classes = by_view(student.cls_head(vectors(passes)), self.count)
        wanted = by_view(taught.vector, recipe.global_views)
        losses = {"class": -recipe.cls_weight * cross_view_cosine(wanted, classes)}
        if recipe.distill == "cls+patch":
            late, mid = taught.late, taught.mid
            if recipe.student == "vit_b" and recipe.vit_patches == "crossed":
                late, mid = mid, late
            losses["patch_late"] = -recipe.late_weight * patch_cosine(student.patch_head_late(passes[0].late), late)
            losses["patch_mid"] = -recipe.mid_weight * patch_cosine(student.patch_head_mid(passes[0].mid), mid)
        return losses

    @property
    def count(self) -> int:
        """The number of views of an image."""
        return self.recipe.global_views + self.recipe.local_views

    def parameter_groups(self) -> list[ParameterGroup]:
        """Weight decay for matrices, none for biases and other vectors, as in the release."""
        trained = [(name, value) for name, value in self.named_parameters() if value.requires_grad]
        spared = [pair for pair in trained if pair[1].ndim == 1 or pair[0].endswith(".bias")]
        names = {name for name, _ in spared}
        return [
            ParameterGroup([pair for pair in trained if pair[0] not in names], decay=True),
            ParameterGroup(spared, decay=False),
        ]

    def after_step(self, progress: Progress) -> None:
        """Let the MS teacher follow the student, with the momentum of this step."""
        follow(self.teacher, self.student, self.momentum(progress))

    def momentum(self, progress: Progress) -> float:
        """The EMA's momentum: from its first value to its second along half a cosine over all steps."""
        start, end = self.recipe.ema
        return end + 0.5 * (start - end) * (1 + cos(pi * progress.step / progress.total))

    def checkpoint(self) -> dict[str, Any]:
        """`student`: the weights by the release's keys, which `models/deo.py` loads strictly."""
        return {"student": {key: value.cpu().clone() for key, value in self.student.official().items()}}

    @torch.no_grad()
    def probe_features(self, images: Tensor) -> Tensor:
        """Images (B, 10, H, W) in digital numbers, red, green, blue first -> the adapter's vectors (B, D) of the student.

        In eval mode, with the adapter's normalisation, at the size of the images: give them the `global_size` of the
        recipe to see the ground at the scale that it is trained at.
        """
        network = self.student.backbone
        training = network.training
        network.eval()
        rgb = torch.stack([deo_views.scale_to_maximum(image) for image in images[:, :3].float()])
        batch = Batch({"optical": normalise(torch.cat([rgb, images[:, 3:].float()], dim=1), MEAN, STD)}, "ms")
        vector = network.encode(batch)[1]["default"]
        network.train(training)
        return vector


def by_view(rows: Tensor, number: int) -> Tensor:
    """(V * B, D) -> (V, B, D)."""
    return rows.unflatten(0, (number, -1))


def vectors(passes: list[Passed]) -> Tensor:
    """The vectors of all views, global ones first: (V * B, D)."""
    return torch.cat([each.vector for each in passes])


def leave_out_optical(module: torch.nn.Module, state: dict[str, Any], prefix: str, _: Mapping[str, Any]) -> None:
    """A state dict without the frozen optical teacher, whose weights are large and may not be passed on."""
    for key in [key for key in state if key.startswith(f"{prefix}optical.")]:
        del state[key]


def keep_optical(module: torch.nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A state dict without the optical teacher leaves the one that is there as it is."""
    optical = module.get_submodule("optical") if getattr(module, "optical", None) is not None else None
    if optical is not None:
        state |= {f"{prefix}optical.{key}": value for key, value in optical.state_dict().items()}
