"""A method of a few parameters on random images, trained by the real engine: `python pretraining.toy.py OUT STEPS ...`."""

import argparse
import hashlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.pretraining.settings import Settings
from harness.pretraining.trainer import Outcome, pretrain
from harness.progress import Progress
from models.pretraining.builder import ParameterGroup, Pretraining, Sample
from models.pretraining.builder import Progress as Place


@dataclass(frozen=True)
class ToyRecipe:
    """The fields that the trainer reads, and the toy's dropout."""

    batch: int = 8
    epochs: int = 4
    warmup_epochs: float = 1
    learning_rate: float = 1.0
    minimum_learning_rate: float = 1e-3
    weight_decay: tuple[float, float] = (0.04, 0.4)
    clip: float = 3.0
    clip_mode: str = "per-tensor"
    precision: str = "fp32"
    dropout: float = 0.3


class Toy(Pretraining):
    """Two views of an image, a student with dropout, a teacher that follows; loss: the squared distance of the two."""

    def __init__(self, recipe: ToyRecipe) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Dropout(recipe.dropout), nn.Linear(16, 4))
        self.teacher = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 4)).requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def views(self, sample: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        image = sample["ms"]
        noise = torch.rand(2, *image.shape, generator=generator)
        return {"views": (image + 0.1 * noise).flatten(1)}

    def forward(self, views: dict[str, Tensor], progress: Place) -> dict[str, Tensor]:
        one, two = views["views"].unbind(1)
        with torch.no_grad():
            target = self.teacher(two)
        return {"distance": (self.student(one) - target).square().mean(), "size": 0.1 * self.student(two).abs().mean()}

    def parameter_groups(self) -> list[ParameterGroup]:
        trained = [(name, weights) for name, weights in self.student.named_parameters()]
        first = [pair for pair in trained if pair[0].startswith("0.")]
        last = [pair for pair in trained if pair[0].startswith("3.")]
        return [ParameterGroup(first, decay=True), ParameterGroup(last, decay=False, frozen_epochs=1)]

    def after_step(self, progress: Place) -> None:
        with torch.no_grad():
            self.teacher[0].weight.lerp_(self.student[0].weight, 0.1)

    def checkpoint(self) -> dict[str, Any]:
        return {"student": self.student.state_dict()}


@dataclass
class Noise:
    """Images (3, 2, 2) by number."""

    count: int = 40
    layout: str = "noise"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return {"ms": np.random.default_rng(number).random((3, 2, 2), dtype=np.float32)}

    @property
    def digest(self) -> str:
        return hashlib.sha256(str(self.count).encode()).hexdigest()


class Killed(Toy):
    """Ends its own process, as the kernel would, in the middle of a step."""

    def __init__(self, recipe: ToyRecipe, at: int) -> None:
        super().__init__(recipe)
        self.at = at

    def after_step(self, progress: Place) -> None:
        super().after_step(progress)
        if progress.step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(out: Path, recipe: ToyRecipe | None = None, kill_at: int = -1, **settings: Any) -> tuple[Toy, Outcome]:
    """Train the toy; the method and what came out."""
    recipe = recipe or ToyRecipe()
    torch.manual_seed(0)
    method = Killed(recipe, kill_at) if kill_at >= 0 else Toy(recipe)
    return method, pretrain(method, Noise(), Settings("toy", recipe, **settings), out, progress=Progress(quiet=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kill-at", type=int, default=-1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--launcher", default="none")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(
        options.out,
        ToyRecipe(dropout=options.dropout),
        options.kill_at,
        steps=options.steps,
        save_every=3,
        workers=options.workers,
        launcher=options.launcher,
        accumulate=options.accumulate,
    )
