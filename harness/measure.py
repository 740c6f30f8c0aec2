"""One model on one data set: identities of its runs, features in one pass, and the result of every head."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models
from harness import provenance
from harness.plan import Job, compile_for
from harness.progress import Progress
from leaderboards.results import Identity
from models.common.backbone import Backbone
from models.common.bands import Transform
from models.common.card import Card
from models.common.errors import UserError
from models.common.weights import Located, module_digest
from tasks import knn, linear_probe
from tasks.common import low_data, neck
from tasks.common.augmentation import augment, epoch_features
from tasks.common.features import Compute, Table, extract, forward
from tasks.common.splits import Result, Split
from tasks.data.dataset import SPLITS, Dataset
from tasks.protocols import LinearProbe, Protocol


@dataclass(frozen=True)
class Options:
    """What the command line decided, besides the plan."""

    protocol: Protocol
    preset: Protocol
    weights: str
    label: str
    cache: Path
    store: Path
    compute: Compute
    limit: int | None
    force: bool
    strict: bool
    verbose: bool


class CannotBuild(UserError):
    """A model that cannot be built fails once, not once per data set."""


class Model:
    """One backbone, built when first needed and checked to have stayed the same when it is let go."""

    def __init__(self, card: Card, located: Located, options: Options) -> None:
        self.card, self.located, self.options = card, located, options

    @cached_property
    def backbone(self) -> Backbone:
        try:
            built = models.build(self.card.address, self.options.weights, self.options.cache)
        except UserError as error:
            raise CannotBuild(f"{self.card.label}: {error}") from error
        return built.to(self.options.compute.device)

    @cached_property
    def revision(self) -> str:
        """The card's revision; for an adapter file of the caller's own also its content, which changes without notice."""
        source = self.card.source
        content = f" {hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]}" if source else ""
        return f"{self.card.label} {self.card.revision}{content}"

    @cached_property
    def digest(self) -> str:
        return module_digest(self.backbone)

    def get(self) -> Backbone:
        """The backbone, its digest taken before anything is computed with it."""
        _ = self.digest
        return self.backbone

    def close(self) -> None:
        """Refuse to go on if a frozen evaluation has changed the backbone."""
        if "digest" in self.__dict__ and module_digest(self.backbone) != self.digest:
            raise RuntimeError(f"{self.card.label}: the frozen backbone changed while it was evaluated")
        self.__dict__.pop("backbone", None)


class Opened:
    """A data set under one model's transform: identities of its runs, and its features once they are needed."""

    def __init__(self, model: Model, dataset: Dataset, progress: Progress) -> None:
        self.model, self.dataset, self.options, self.progress = model, dataset, model.options, progress
        self.transform: Transform = compile_for(model.card, dataset.bands, self.options.protocol)
        self.pooled = self.options.protocol.pooled_of(model.card.label)
        self.names = {split: dataset.splits[split][: self.options.limit] for split in SPLITS}

    def train_names(self, fraction: str) -> tuple[str, ...]:
        return low_data.train_names(self.dataset, fraction)[: self.options.limit]

    def identity(self, job: Job, seed: int | None) -> Identity:
        """What makes this run this run."""
        names = [self.train_names(job.fraction), self.names["val"], self.names["test"]]
        digest = hashlib.sha256("\n\n".join("\n".join(part) for part in names).encode()).hexdigest()[:16]
        return identity(self.model, job, seed, self.transform.mode.name, self.dataset.version[:16], digest)

    @cached_property
    def table(self) -> Table:
        """Pooled features of every image of every split, in one pass."""
        names = [name for split in SPLITS for name in self.names[split]]
        return extract(
            self.model.get,
            self.dataset,
            names,
            self.transform,
            pooled=self.pooled,
            weights_digest=self.model.located.digest,
            card_revision=self.model.revision,
            store=self.options.store,
            compute=self.options.compute,
            progress=self.progress,
            strict=self.options.strict,
        )

    @cached_property
    def stage_maps(self) -> neck.StageMaps:
        """The frozen stages by name, for what is trained between them and the head."""

        def encode(names: Sequence[str]) -> neck.Maps:
            return self.stages([self.patch(name)[None] for name in names])

        return neck.StageMaps(encode, self.options.compute.batch)

    def patch(self, name: str) -> np.ndarray:
        """One image (C, H, W) in sensor units, float32."""
        return self.dataset.read(name, self.transform.read).astype(np.float32)

    def stages(self, patches: Sequence[np.ndarray]) -> neck.Maps:
        """Patches, each (1, C, H, W) in sensor units -> stages (B, C_i, H_i, W_i); all of one size."""
        groups = forward(self.model.get(), patches, self.transform, self.dataset, self.pooled, self.options.compute)
        return tuple(torch.cat(parts) for parts in zip(*(group.stages for group in groups), strict=True))

    def through_neck(self, train: Split, val: Split, test: Split, seed: int, switches: LinearProbe) -> Result:
        """Linear probing with the model's neck; augmented where the protocol says so."""
        position = {name: index for index, name in enumerate(train.names)}

        def fresh(names: Sequence[str], epoch: int) -> neck.Maps:
            keys = [np.random.default_rng([seed, epoch, position[name]]) for name in names]
            patches = [augment(self.patch(name), switches, key)[None] for name, key in zip(names, keys, strict=True)]
            model = self.model.get().train(switches.backbone_mode == "train")
            try:
                return self.stages(patches)
            finally:
                model.eval()

        return neck.evaluate(
            self.model.get(),
            self.stage_maps,
            None if switches.uses_stored_features else fresh,
            train,
            val,
            test,
            self.dataset.card.num_classes,
            self.dataset.card.label == "multilabel",
            seed,
            switches,
        )

    @cached_property
    def labels(self) -> dict[str, Any]:
        return {name: self.dataset.label(name) for split in SPLITS for name in self.names[split]}

    def split(self, names: Sequence[str]) -> Split:
        return Split(self.table.rows(names), _labels([self.labels[name] for name in names]), tuple(names))


def identity(
    model: Model,
    job: Job,
    seed: int | None,
    mode: str = "unknown",
    version: str = "unknown",
    split_digest: str = "unknown",
) -> Identity:
    """The semantic fields of a run, and nothing else: workers, device and batch size are provenance."""
    card, options = model.card, model.options
    return Identity(
        model=card.name,
        variant=card.variant,
        weights=model.located.digest,
        card_revision=card.revision,
        mode=mode,
        dataset=job.dataset.name,
        dataset_version=version,
        split_digest=split_digest,
        task=job.task,
        protocol=options.protocol.name,
        switches=options.protocol.switches(job.task, job.dataset.name, card.label)
        | ({"adapter": model.revision} if card.source else {}),
        train_fraction=job.fraction,
        draw=0,
        seed=seed,
        limit=options.limit,
        precision=options.compute.precision,
    )


def _labels(labels: list[Any]) -> torch.Tensor:
    """Integers -> (N,) int64; 0/1 vectors -> (N, C) int64; an absent split stays empty."""
    if not labels:
        return torch.zeros(0, dtype=torch.int64)
    return torch.stack([torch.as_tensor(label, dtype=torch.int64) for label in labels])


def label_of(job: Job, options: Options) -> str:
    """What --label says, then the switches that --set moved away from the preset."""
    now, preset = (
        protocol.switches(job.task, job.dataset.name, job.card.label) for protocol in (options.protocol, options.preset)
    )
    moved = [f"{name}={_word(now[name])}" for name in sorted(now) if now[name] != preset.get(name)]
    return " ".join(([options.label] if options.label else []) + moved)


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def primary(job: Job, protocol: Protocol) -> str:
    multilabel = job.dataset.label == "multilabel"
    if job.task == "knn":
        return knn.primary(multilabel, protocol.knn)
    return linear_probe.primary(multilabel, protocol.linear_probe)


def results(job: Job, seeds: Sequence[int | None], opened: Opened) -> Iterator[tuple[int | None, Result]]:
    """The result of each seed; every seed is computed alone, so that it is the same whichever others run beside it."""
    if not seeds:
        return
    protocol, card = opened.options.protocol, opened.dataset.card
    multilabel = card.label == "multilabel"
    train_names = opened.train_names(job.fraction)
    train, val, test = (opened.split(names) for names in (train_names, opened.names["val"], opened.names["test"]))
    if job.task == "knn":
        yield None, knn.evaluate(train, val, test, card.num_classes, multilabel, protocol.knn)
        return
    switches = protocol.linear_probe.for_dataset(card.name)
    if opened.model.card.necks and switches.neck != "none":
        for seed in seeds:
            assert seed is not None, "linear probing is seeded"
            yield seed, opened.through_neck(train, val, test, seed, switches)
        return
    exact = (
        linear_probe.logistic(train, val, test, card.num_classes, multilabel, switches) if switches.logistic else None
    )
    for seed in seeds:
        assert seed is not None, "linear probing is seeded"

        def train_epoch(epoch: int, seed: int = seed) -> Split:
            features = epoch_features(
                opened.model.get(),
                opened.dataset,
                train_names,
                opened.transform,
                pooled=opened.pooled,
                switches=switches,
                seed=seed,
                epoch=epoch,
                compute=opened.options.compute,
                progress=opened.progress,
            )
            return Split(features, train.labels, train.names)

        fresh = None if switches.uses_stored_features else train_epoch
        result = linear_probe.evaluate(train, val, test, card.num_classes, multilabel, seed, switches, fresh)
        yield seed, result if exact is None else _joined(result, exact)


def _joined(first: Result, second: Result) -> Result:
    """Two results of the same test images as one; their metrics have different names."""
    return Result(
        first.metrics | second.metrics,
        first.samples | second.samples,
        first.choices | second.choices,
        first.notes + second.notes,
    )


def facts(opened: Opened, label: str, result: Result, seconds: float) -> dict[str, Any]:
    table = opened.table
    return {
        **provenance.machine(opened.options.compute.device),
        "label": label,
        "batch_size": opened.options.compute.batch,
        "seconds": round(seconds, 3),
        "images_encoded": table.extracted,
        "warnings": [*opened.dataset.warnings, *table.warnings, *opened.transform.notes, *result.notes],
        "dataset_notes": list(getattr(opened.dataset, "notes", ())),
        "transform": opened.transform.describe(),
        "choices": result.choices,
    }
