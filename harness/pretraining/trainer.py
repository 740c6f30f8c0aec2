"""One pretraining from first step to the file that `run --weights` takes: method, images, mmengine's Runner.

OUT/training.json        what this training is; the folder is closed to any other
OUT/state/step-*.pth     the last two checkpoints, from which the same command goes on
OUT/curve.jsonl          losses, schedules, throughput and memory, a line per step; probes between them
OUT/curve.png            the same to look at, drawn at the end
OUT/tensorboard/         the same for TensorBoard (`tensorboard --logdir OUT/tensorboard`)
OUT/log/                 mmengine's log
OUT/<method>.pth         the product, in the official container
OUT/provenance.json      where it came from; written last
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed

from harness import provenance
from harness.pretraining.data import Loader, Samples, StepBatches
from harness.pretraining.launch import Place, join
from harness.pretraining.log import CURVE, Curve, Probe, steps
from harness.pretraining.picture import draw
from harness.pretraining.settings import Settings, Timetable, claim, identity
from harness.progress import Progress
from models.common.errors import UserError
from models.common.files import sha256, write_whole
from models.pretraining.builder import Pretraining
from models.pretraining.engine import MethodModel, Plan, StepRunner, StepWrapper, optimiser
from models.pretraining.hooks import KEPT, Checkpoints, Schedule, Schedules, newest, write

LAST = 20  # steps whose mean stands for the final losses


@dataclass(frozen=True)
class Outcome:
    """What a training left: the product, its provenance, and the mean losses of the last steps."""

    checkpoint: Path
    provenance: Path
    steps: int
    resumed_from: int
    losses: Mapping[str, float]


def pretrain(
    method: Pretraining,
    images: Samples,
    settings: Settings,
    out: Path,
    probe: Probe | None = None,
    progress: Progress | None = None,
    place: Place | None = None,
) -> Outcome:
    """Train `method` on `images` and write the product to `out`; goes on from the last checkpoint there.

    `probe` scores the method as it stands (see `harness.pretraining.probe`). The method should be built after
    `torch.manual_seed(settings.seed)`. Every process of a distributed training calls this; the first writes. Raises
    `UserError` for a folder of another training, data that do not fill a batch, a disk without room, a loss that is no
    number any more.
    """
    place = place or join(settings.launcher, settings.device)
    progress = progress or Progress(quiet=place.rank > 0)
    table = Timetable.of(settings, len(images))
    recipe = settings.recipe
    batches = StepBatches(
        len(images) * settings.repeats,
        recipe.batch,
        settings.accumulate,
        table.total,
        settings.seed,
        place.rank,
        place.processes,
    )
    what = identity(settings, table.total, len(images), images.digest)
    groups = method.parameter_groups()
    trained = {id(weights) for group in groups for _, weights in group.parameters}
    for weights in method.parameters():
        weights.requires_grad_(id(weights) in trained)  # what no optimiser moves needs no gradient either
    with _alone(out, place):
        if place.rank == 0:
            claim(out, what, begun=newest(out / "state") is not None or (out / "provenance.json").is_file())
            check_room(out, method, trained)
        _together()
        found = newest(out / "state")
        began = found[0] if found else 0
        if began:
            progress.line(f"going on from step {began} of {table.total} ({out})")
        curve = Curve(out, recipe.batch, place.device, progress, probe, table.probe_every if probe else 0)
        runner = StepRunner(
            device=place.device,
            method=method,
            plan=Plan(table.total, table.epoch_steps, settings.accumulate, settings.seed),
            model=MethodModel(method),
            work_dir=str(out / "log"),
            train_dataloader=Loader(images, method, batches, settings.workers, place.device, settings.on_device),
            optim_wrapper=StepWrapper(
                optimiser(groups), settings.accumulate, recipe.clip, recipe.clip_mode, recipe.precision, place.device
            ),
            default_hooks=dict.fromkeys(
                ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
            ),
            custom_hooks=[
                Schedules(
                    Schedule(table.peak, recipe.minimum_learning_rate, table.warmup, table.total),
                    Schedule(*recipe.weight_decay, 0, table.total),
                ),
                curve,
                Checkpoints(out / "state", table.save_every, json.dumps(what, sort_keys=True), curve.flush),
            ],
            launcher=settings.launcher,
            randomness={"seed": settings.seed},
            experiment_name=f"{out.resolve()} from step {began}",
            log_level="ERROR",
        )
        _log_to_file_alone(runner.logger)
        try:
            runner.train()
        finally:
            progress.close()
        losses = final_losses(out)
        if place.rank == 0:
            product = finish(out, method, settings, what, table, images.layout, place, losses)
            drawn = draw(out)
            progress.line(f"{product} is written; curve in {out / CURVE}{f' and {drawn}' if drawn else ''}")
        _together()
    return Outcome(out / f"{settings.name}.pth", out / "provenance.json", table.total, began, losses)


def finish(
    out: Path,
    method: Pretraining,
    settings: Settings,
    what: Mapping[str, Any],
    table: Timetable,
    layout: str,
    place: Place,
    losses: Mapping[str, float],
) -> Path:
    """Write the product with what it is (`pretraining`, a text that loaders pass over), then the provenance."""
    product = out / f"{settings.name}.pth"
    write(product, {**method.checkpoint(), "pretraining": json.dumps(what, sort_keys=True)})
    facts = {
        **what,
        "layout": layout,
        "epoch_steps": table.epoch_steps,
        "warmup_steps": table.warmup,
        "peak_learning_rate": table.peak,
        "processes": place.processes,
        "precision": settings.recipe.precision,
        "final_losses": dict(losses),
        "final_losses_are": f"means of the last {min(LAST, table.total)} steps",
        "curve": CURVE,
        "checkpoint": product.name,
        "checkpoint_sha256": sha256(product),
        **provenance.machine(str(place.device)),
    }
    write_whole(out / "provenance.json", json.dumps(facts, indent=1) + "\n")
    return product


def final_losses(out: Path) -> dict[str, float]:
    """The mean of every loss over the last steps of the curve."""
    last = steps(out)[-LAST:]
    names = [name for name in (last[-1] if last else {}) if name.startswith("loss")]
    return {name: sum(line[name] for line in last) / len(last) for name in names}


def check_room(out: Path, method: Pretraining, trained: set[int]) -> None:
    """Refuse to start where checkpoints and product will not fit: weights once, AdamW's two moments of what is trained."""
    weights = sum(value.numel() * value.element_size() for value in method.state_dict().values())
    moments = 2 * sum(value.numel() * 4 for value in method.parameters() if id(value) in trained)
    needed, free = (KEPT + 1) * (weights + moments) + weights, shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"--out {out}: checkpoints and product need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free there: make "
            "room or choose another folder"
        )


@contextmanager
def _alone(out: Path, place: Place) -> Iterator[None]:
    """Hold the folder; a second training of the same name would write into the first one's curve."""
    if place.rank:
        yield
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = open(out / ".lock", "wb")
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is training in {out}; wait for it or choose another --out") from error
        yield


def _together() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def _log_to_file_alone(logger: logging.Logger) -> None:
    """mmengine's log goes to its file; the terminal belongs to the one live line."""
    logger.setLevel(logging.INFO)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.INFO)
