"""What a pretraining would do, in words: recipe, schedules at five points, memory and time. Nothing is started.

Memory and time are measured, not guessed: one forward and backward pass of a few images on this machine. Weights,
gradients, AdamW's moments are counted exactly; activations are the bytes that autograd kept for those images, times the
images of a part of a batch.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from harness.pretraining.data import Item, Samples, generator
from harness.pretraining.settings import Settings, Timetable
from models.common.errors import UserError
from models.pretraining.builder import Pretraining, Progress
from models.pretraining.engine import DTYPES
from models.pretraining.hooks import Schedule

POINTS = 5
TRIED = 2  # images of the first pass measured, doubled until one takes long enough to tell, or is all of a part
ENOUGH = 1.0  # seconds


class Measured(NamedTuple):
    """Bytes of weights (all networks), of gradients and moments, of activations per image; seconds per image."""

    weights: int
    trained: int
    training: int
    activations: float
    reading: float
    computing: float
    images: int


def measure(method: Pretraining, images: Samples, settings: Settings) -> Measured:
    """One pass of a few images; the method is as before but for its gradients, which are let go."""
    device = torch.device(settings.device)
    method.to(device).train()
    trained = {id(w): w for group in method.parameter_groups() for _, w in group.parameters}
    for weights in method.parameters():
        weights.requires_grad_(id(weights) in trained)
    part = settings.recipe.batch // settings.accumulate
    made: list[dict[str, Tensor]] = []
    reading = 0.0
    while True:
        began = time.perf_counter()
        for number in range(len(made), min(part, max(TRIED, 2 * len(made)))):
            sample = {sensor: torch.from_numpy(array) for sensor, array in images[number % len(images)].items()}
            made.append(method.views(sample, generator(settings.seed, Item(0, number))))
        reading += time.perf_counter() - began
        batch = {name: value.to(device) for name, value in default_collate(made).items()}
        try:
            seconds, kept = _pass(method, batch, DTYPES[settings.recipe.precision])
        except UserError:  # covariance groups ask for more images at once
            if len(made) == part:
                raise
            continue
        if len(made) == part or seconds > ENOUGH:
            break
    method.zero_grad(set_to_none=True)
    numbers, count = sum(weights.numel() for weights in trained.values()), len(made)
    weights = sum(value.numel() * value.element_size() for value in (*method.parameters(), *method.buffers()))
    return Measured(weights, numbers, numbers * 4 * 3, kept / count, reading / count, seconds / count, count)


def _pass(method: Pretraining, batch: dict[str, Tensor], dtype: torch.dtype | None) -> tuple[float, int]:
    """Seconds of one forward and backward pass, and the bytes that autograd kept between the two."""
    device = next(iter(batch.values())).device
    own = {value.untyped_storage().data_ptr() for value in (*method.parameters(), *method.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    _wait(device)
    began = time.perf_counter()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(device.type, dtype, enabled=dtype is not None),
    ):
        loss = torch.stack(list(method(batch, Progress(0, 1, 1)).values())).sum()
    loss.backward()
    _wait(device)
    return time.perf_counter() - began, sum(kept.values())


def describe(
    settings: Settings, table: Timetable, layout: str, notes: tuple[str, ...], measured: Measured, processes: int
) -> Iterator[str]:
    """The lines of a plan."""
    recipe = settings.recipe
    yield f"pretrain {settings.name} on {settings.device}, {recipe.precision}, {processes} process(es), seed {settings.seed}"
    yield f"data: {layout}"
    yield from (f"note: {note}" for note in notes)
    yield "recipe:"
    yield from (f"  {line}" for line in columns(asdict(recipe)))  # type: ignore[call-overload]
    part = recipe.batch // settings.accumulate // processes
    yield (
        f"{table.total} steps of {recipe.batch} images ({table.epoch_steps} to an epoch, {part} at once on a process), "
        f"warm-up {table.warmup}, checkpoint every {table.save_every}, probe every {table.probe_every}"
    )
    yield "schedules:   step  learning rate  weight decay"
    rate = Schedule(table.peak, recipe.minimum_learning_rate, table.warmup, table.total)
    decay = Schedule(*recipe.weight_decay, 0, table.total)
    for step in points(table.total):
        yield f"  {step:15d}  {rate(step):13.3e}  {decay(step):12.4f}"
    memory = measured.weights + measured.training + measured.activations * part
    yield (
        f"memory: {memory / 1e9:.2f} GB per process (weights {measured.weights / 1e9:.2f}; gradients and AdamW's moments of "
        f"{measured.trained / 1e6:.1f} M trained {measured.training / 1e9:.2f}; activations "
        f"{measured.activations * part / 1e9:.2f})"
    )
    reading = measured.reading / max(1, settings.workers)
    seconds = max(measured.computing * part, reading * part) * settings.accumulate
    if not settings.workers:
        seconds = (measured.computing + measured.reading) * part * settings.accumulate
    yield (
        f"time: {seconds:.2f} s per step, {span(seconds * table.total)} in all; computing {measured.computing * 1e3:.0f} ms "
        f"per image, making views {measured.reading * 1e3:.0f} ms per image in each of {max(1, settings.workers)} worker(s)"
    )
    yield f"both calibrated on this machine by a forward and backward pass of {measured.images} image(s)"


def points(total: int) -> list[int]:
    """Five steps from the first to the last, each once."""
    return sorted({round(number * (total - 1) / (POINTS - 1)) for number in range(POINTS)})


def columns(values: Mapping[str, Any]) -> list[str]:
    """`name=value`, as many to a line as fit."""
    lines: list[str] = []
    for name, value in values.items():
        text = f"{name}={','.join(map(str, value)) if isinstance(value, tuple | list) else value}"
        if lines and len(lines[-1]) + len(text) < 110:
            lines[-1] += f"  {text}"
        else:
            lines.append(text)
    return lines


def span(seconds: float) -> str:
    """Seconds as `40 s`, `12 min`, `5.0 h` or `3.1 days`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
