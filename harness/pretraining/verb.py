"""`python -m harness pretrain`: words of the command line in, a checkpoint that `run --weights` takes out."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import cache_folder, data_root
from harness.pretraining.methods import Asked, Prepared, prepare, preset_names
from harness.pretraining.settings import Settings, Timetable
from harness.progress import Progress
from models.common.errors import UserError, choose

if TYPE_CHECKING:
    from harness.pretraining.launch import Place
    from models.pretraining.builder import Pretraining

DEFAULT_PROBE = "demo-eurosat"


def asked_of(options: argparse.Namespace) -> Asked:
    """The words that decide what is learnt, checked as far as words can be."""
    from models.pretraining.engine import DTYPES

    if options.preset is not None:
        choose(f"preset of {options.method}", options.preset, preset_names(options.method))
    if options.precision is not None:
        choose("precision", options.precision, DTYPES)
    for name in ("steps", "epochs", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value} is below 1")
    if options.accumulate < 1:
        raise UserError(f"--accumulate {options.accumulate} is below 1")
    if options.steps and options.epochs:
        raise UserError("--steps and --epochs both say how long; give one")
    if not 0 <= options.rgb_share <= 1:
        raise UserError(f"--rgb-share {options.rgb_share:g} is no share: 0 to 1")
    return Asked(
        options.method,
        tuple(options.data),
        options.preset,
        options.recipe,
        options.scale,
        tuple(options.switches),
        options.teacher,
        options.teacher_weights,
        options.init,
        options.init_weights,
        options.epochs,
        options.batch,
        options.accumulate,
        options.precision,
        options.pairing,
        options.rgb_share,
        options.seed,
    )


def pretrain_verb(options: argparse.Namespace) -> int:
    """Prepare, and train or print the plan."""
    from harness.verbs import check_device_name, resolve_device

    check_device_name(options.device)
    asked = asked_of(options)
    out: Path | None = options.out
    if out is None and not options.plan:
        raise UserError("--out is missing: the folder that the checkpoint goes to")
    import torch

    from harness.pretraining.launch import join
    from harness.pretraining.trainer import pretrain

    device = resolve_device(options.device)
    place = join(options.launcher, device)
    prepared = prepare(asked, device.startswith("cuda"), cache_folder())
    settings = Settings(
        name=options.method,
        recipe=prepared.recipe,
        steps=options.steps,
        accumulate=options.accumulate,
        seed=options.seed,
        device=str(place.device),
        workers=options.workers,
        launcher=options.launcher,
        save_every=options.save_every,
        probe_every=options.probe_every,
        on_device=options.augment_on == "device",
        repeats=prepared.repeats,
        facts=prepared.facts,
    )
    table = Timetable.of(settings, len(prepared.images))
    progress = Progress(quiet=options.quiet or place.rank > 0)
    torch.manual_seed(options.seed)
    if options.plan or out is None:
        from harness.pretraining.plan import describe, measure

        measured = measure(prepared.build(), prepared.images, settings)
        notes = prepared.images.notes + prepared.notes
        if place.rank == 0:
            print("\n".join(describe(settings, table, prepared.images.layout, notes, measured, place.processes)))
        return 0
    for line in (f"data: {prepared.images.layout}", *prepared.images.notes, *prepared.notes):
        progress.line(line)
    method = prepared.build()
    outcome = pretrain(
        method,
        prepared.images,
        settings,
        out,
        probe=_probe(options.probe, prepared, method, place) if place.rank == 0 else _silent(options.probe),
        progress=progress,
        place=place,
    )
    if place.rank == 0:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in outcome.losses.items())
        print(f"{outcome.steps} steps, final {losses}")
        print(f"measure it: python -m harness run --model {prepared.model} --weights {outcome.checkpoint} --suite demo")
        if options.json:
            print(json.dumps({"checkpoint": str(outcome.checkpoint), "losses": dict(outcome.losses), "exit": 0}))
    return 0


def _silent(name: str) -> Callable[[], dict[str, float]] | None:
    """What the other processes have in place of a probe, so that all agree on when there is one."""
    return None if name == "none" else dict


def _probe(
    name: str, prepared: Prepared, method: "Pretraining", place: "Place"
) -> Callable[[], dict[str, float]] | None:
    """The k-NN probe on a data set by name or TOML file; the twin's is written where it is not there yet."""
    if name == "none":
        return None
    from harness.pretraining.probe import LabelledSet, encoder
    from tasks.data import catalogue, sources, twin

    card: Any = catalogue.card(name)
    root = data_root()
    if card.location.startswith("twin/"):
        twin.write(root / "twin")
        where: Path | None = root / card.location
    else:
        where = catalogue.find(card, root)
    if where is None:
        raise UserError(f"--probe {card.name} is not on this machine; {sources.remedy(card)}")
    labelled = LabelledSet(
        catalogue.open_dataset(card, where, "corrected"), prepared.multispectral, prepared.probe_size
    )
    encode = encoder(method, place.device, prepared.probe_sensor)
    return lambda: labelled.score(encode)
