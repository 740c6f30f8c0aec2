"""What a training writes about itself while it runs: one line of JSON per step, TensorBoard's events, one live line."""

import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, distributed

from harness.pretraining.events import EventFile
from harness.progress import Progress
from models.common.errors import UserError
from models.common.files import write_whole
from models.pretraining.engine import wrapper_of

CURVE, EVENTS = "curve.jsonl", "tensorboard"
LOGGED = 50  # every so many steps, a line goes into mmengine's log
PENDING = 20  # steps on a GPU between two readings of the losses, each of which waits for the device

Probe = Callable[[], Mapping[str, float]]


class Curve(Hook):
    """Losses (mean over processes), learning rate, weight decay, seconds, images per second and memory of every step.

    The curve of a training that goes on is cut where its checkpoint was made, so that every step stands in it once.
    `probe`, on the first process, gives scores before the first step, every `probe_every` steps (0: no probe) and after the
    last. TensorBoard counts steps that are done.
    """

    priority = "NORMAL"

    def __init__(
        self, out: Path, batch: int, device: torch.device, progress: Progress, probe: Probe | None, probe_every: int
    ) -> None:
        self.out, self.batch, self.device, self.progress = out, batch, device, progress
        self.probe, self.probe_every = probe, probe_every
        self.pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self.began, self.rank = 0.0, 0
        self.events: EventFile | None = None
        self.last: dict[str, Any] = {}

    def begin(self, step: int) -> None:
        """Take up the curve at the step where the checkpoint was made; on the first process, before its first step."""
        kept = [line for line in lines(self.out) if line["step"] < step]
        write_whole(self.out / CURVE, "".join(json.dumps(line) + "\n" for line in kept))
        self.events = EventFile(self.out / EVENTS)
        for line in kept:
            self.events.add(line["time"], line["step"] + 1, scalars(line))
        self.last = kept[-1] if kept else {}
        if self.probe and not step:
            self.score(-1)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock; it runs on from the end of the step before, so that waiting for data counts."""
        if not self.began:
            self.rank = runner.rank
            if self.rank == 0:
                self.begin(batch_idx)
            self.began = time.perf_counter()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the step; read what is pending where that costs nothing or is due."""
        assert isinstance(outputs, dict)
        now = time.perf_counter()
        groups = wrapper_of(runner).optimizer.param_groups
        line = {
            "step": batch_idx,
            "learning_rate": groups[0]["lr"],
            "weight_decay": max(group["weight_decay"] for group in groups),
            "seconds": round(now - self.began, 4),
            "images_per_second": round(self.batch / max(now - self.began, 1e-9), 2),
            "memory_mb": round(self.memory(), 1),
            "time": round(time.time(), 3),
        }
        self.began = now
        self.pending.append((line, outputs))
        last = batch_idx + 1 == runner.max_iters
        probing = self.probe_every > 0 and ((batch_idx + 1) % self.probe_every == 0 or last)
        if self.device.type == "cpu" or len(self.pending) >= PENDING or last or probing:
            self.flush()
        if probing and self.probe and self.rank == 0:
            self.score(batch_idx)
            self.began = time.perf_counter()
        if self.rank == 0 and self.last:
            text = f"loss {self.last['loss']:.4f}, {self.last['images_per_second']:.1f} images/s"
            if (batch_idx + 1) % LOGGED == 0 or last:
                memory = f"{self.last['memory_mb']:.0f} MB, learning rate {line['learning_rate']:.3g}"
                runner.logger.info(f"step {batch_idx + 1}/{runner.max_iters}: {text}, {memory}")
            self.progress(
                f"pretraining ({text})" if self.progress.live else "pretraining", batch_idx + 1, runner.max_iters
            )

    def flush(self) -> None:
        """Bring what is pending to disk. Raises `UserError` where the loss is no number any more."""
        if not self.pending:
            return
        names = list(self.pending[0][1])
        values = torch.stack([torch.stack([outputs[name].float() for name in names]) for _, outputs in self.pending])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(values)
            values /= distributed.get_world_size()
        found = [
            {**line, **dict(zip(names, numbers, strict=True))}
            for (line, _), numbers in zip(self.pending, values.tolist(), strict=True)
        ]
        self.pending.clear()
        if self.rank == 0:
            self.write(found)
        for line in found:
            if not isfinite(line["loss"]):
                raise UserError(
                    f"the loss is {line['loss']} at step {line['step']} (curve in {self.out / CURVE}): lower it with "
                    "`--set learning_rate=...`, or choose --precision bf16 or fp32"
                )
        self.last = found[-1]

    def write(self, found: Iterable[dict[str, Any]]) -> None:
        """Append lines to the curve and to TensorBoard's file."""
        found = list(found)
        with open(self.out / CURVE, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in found)
            file.flush()
            os.fsync(file.fileno())
        for line in found:
            if self.events:
                self.events.add(line["time"], line["step"] + 1, scalars(line))

    def score(self, step: int) -> None:
        """Note the probe's scores after a step (-1: before the first)."""
        assert self.probe
        scores = dict(self.probe())
        self.write([{"step": step, "time": round(time.time(), 3), "probe": scores}])
        self.progress.line(f"k-NN probe after {step + 1} steps: {_said(scores)}")

    def memory(self) -> float:
        """Peak memory so far in MB: of the GPU, or of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def lines(out: Path) -> list[dict[str, Any]]:
    """The curve of a training; a last line that a kill cut in two is left out."""
    path = out / CURVE
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return found


def steps(out: Path) -> list[dict[str, Any]]:
    """The lines of steps alone, without those of the probe."""
    return [line for line in lines(out) if "loss" in line]


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """What TensorBoard shows of a line: every number by name, `probe/` before scores."""
    found = {name: float(value) for name, value in line.items() if name not in ("step", "time", "probe")}
    return found | {f"probe/{name}": float(value) for name, value in line.get("probe", {}).items()}


def _said(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
