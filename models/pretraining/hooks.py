"""What happens around a step: schedules before it, a checkpoint after it, and the files checkpoints are kept in."""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from models.common.errors import UserError, one_line
from models.pretraining.builder import Pretraining
from models.pretraining.engine import StepLoop, wrapper_of

KEPT = 2
PATTERN = re.compile(r"step-(\d+)\.pth")


@dataclass(frozen=True)
class Schedule:
    """A number that changes from step to step: from 0 to `start` over `warmup` steps, then half a cosine to `end`.

    As DINO's `cosine_scheduler`, on which both releases rest: the warm-up takes `warmup` equal steps from 0 to `start`,
    both included; after it step i of n is end + (start - end) (1 + cos(pi i / n)) / 2.
    """

    start: float
    end: float
    warmup: int
    total: int

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        if step < self.warmup:
            return self.start * step / max(1, self.warmup - 1)
        along = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.end + (self.start - self.end) * (1 + cos(pi * along)) / 2


class Schedules(Hook):
    """Sets learning rate and weight decay before every step; groups without `decay` have none."""

    priority = "VERY_HIGH"

    def __init__(self, learning_rate: Schedule, weight_decay: Schedule) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """`batch_idx` is the step."""
        for group in wrapper_of(runner).optimizer.param_groups:
            group["lr"] = self.learning_rate(batch_idx)
            group["weight_decay"] = self.weight_decay(batch_idx) if group["decay"] else 0.0


class Checkpoints(Hook):
    """Saves every `every` steps and at the end, keeps the last two, and goes on from the newest before training.

    A checkpoint holds the step, the method (student, EMA teacher, heads, centre), the optimiser and its scaler, and
    nothing that needs more than `torch.load(weights_only=True)` to be read: no message hub, no objects. `before_save` is
    called first, on every process (it brings a curve to disk). `identity` says which training it is of.
    """

    priority = "LOW"

    def __init__(self, folder: Path, every: int, identity: str, before_save: Callable[[], None] | None = None) -> None:
        self.folder, self.every_steps, self.identity, self.before_save = folder, every, identity, before_save

    def before_train(self, runner: Runner) -> None:
        """Go on from the newest checkpoint, if there is one, on every process from the same."""
        loop, found = _loop(runner), newest(self.folder)
        there = len(same_everywhere(found[0] if found else 0))
        if there > 1:
            raise UserError(f"the processes see different checkpoints in {self.folder}: it must be a folder they share")
        if not found:
            return
        content = read(found[1])
        if content["identity"] != self.identity:
            raise UserError(f"{found[1]} belongs to another training; choose another --out")
        loop.method.load_state_dict(content["method"])
        wrapper_of(runner).load_state_dict(content["wrapper"])
        loop.step = content["step"]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save at the end of a step that is due."""
        loop = _loop(runner)
        if loop.step % self.every_steps and loop.step < loop.max_iters:
            return
        if self.before_save:
            self.before_save()
        if runner.rank == 0:
            self.save(loop.step, loop.method, wrapper_of(runner).state_dict())

    def save(self, step: int, method: Pretraining, wrapper: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step whole, then delete all but the last two."""
        content = {"identity": self.identity, "step": step, "method": method.state_dict(), "wrapper": dict(wrapper)}
        write(self.folder / f"step-{step:08d}.pth", content)
        for _, path in checkpoints(self.folder)[:-KEPT]:
            path.unlink()


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder with their steps, oldest first."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(match[1]), entry) for entry in entries if (match := PATTERN.fullmatch(entry.name)))


def newest(folder: Path) -> tuple[int, Path] | None:
    """Step and path of the last checkpoint, None where there is none."""
    found = checkpoints(folder)
    return found[-1] if found else None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU; only tensors, numbers, texts and containers of them are let in."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is wrong with the file, the remedy is the same
        raise UserError(
            f"{path} cannot be read ({one_line(error)}): delete it, and training goes on from the one before"
        ) from error


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Save so that `path` is the whole file or is not there. A full disk is a `UserError`, and leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
        beside.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
        raise UserError(
            f"{path} could not be written ({one_line(error)}; {free / 1e9:.1f} GB are free there): make room, and the "
            "same command goes on"
        ) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def same_everywhere(value: int) -> set[int]:
    """The different values that the processes have; one where there is one process."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return {value}
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return set(values)


def _loop(runner: Runner) -> StepLoop:
    assert isinstance(runner.train_loop, StepLoop)
    return runner.train_loop
