"""Curves for TensorBoard: what a training writes into the folder `tensorboard`."""

import shutil
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """Scalars in a folder of TensorBoard's; what an earlier part of the training left there is written anew."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import

        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder))

    def add(self, wall_time: float, step: int, scalars: Mapping[str, float]) -> None:
        """The scalars of one step."""
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, step, wall_time)
        self.writer.flush()
