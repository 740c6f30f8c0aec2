"""What the trainer asks of a pretraining method: views of images, named losses, what follows a step, the file it ends in.

A method is a `torch.nn.Module` that owns its student, teachers, heads and losses, and knows nothing of optimisers, logs,
launchers or files. The trainer (`harness/pretrain.py`) hands it images and sums its losses; all chance comes from the
generator it is given, or from torch's global one, which the trainer seeds anew for every (seed, step, rank).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Sample = Mapping[str, Tensor]


class Progress(NamedTuple):
    """Where a training stands: `step` counts from 0, `total` is the number of steps, `epoch_steps` those of an epoch."""

    step: int
    total: int
    epoch_steps: int


class ParameterGroup(NamedTuple):
    """Named parameters that share their switches. `decay`: weight decay applies; `frozen_epochs`: no update before."""

    parameters: list[tuple[str, nn.Parameter]]
    decay: bool
    frozen_epochs: int = 0


class Pretraining(nn.Module):
    """The base of `DeoPretraining` and `XstarsPretraining`."""

    def views(self, sample: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        """The views of one sample, each of a size that is the same for all samples, so that a batch can stack them.

        `sample` holds images by sensor: `ms` (10, H, W) in digital numbers with red, green and blue first; `rgb`
        (3, H, W) in 0..1; or the sensors of X-STARS by name, each (3, H, W) in 0..1.
        """
        raise NotImplementedError(type(self).__name__)

    def forward(self, views: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        """Stacked views (B, ...) -> losses by name, each a scalar that already carries its coefficient."""
        raise NotImplementedError(type(self).__name__)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Everything that is trained; teachers are not."""
        raise NotImplementedError(type(self).__name__)

    def after_step(self, progress: Progress) -> None:
        """What follows the optimiser's step: the moving average of the teacher."""
        raise NotImplementedError(type(self).__name__)

    def checkpoint(self) -> dict[str, Any]:
        """The file that the adapter of this method loads: the official container with the student's weights."""
        raise NotImplementedError(type(self).__name__)
