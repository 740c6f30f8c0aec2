"""One model on one data set of labelled images: pooled features in one pass, and the result of every head on them."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from harness.measure import Model, identity, split_digest
from harness.plan import Job
from harness.progress import Progress
from leaderboards.results import Identity
from models.common.bands import Transform
from tasks import knn, linear_probe
from tasks.common import low_data, neck
from tasks.common.augmentation import augment, epoch_features
from tasks.common.features import Table, extract, forward
from tasks.common.splits import Result, Split
from tasks.common.stage_maps import StageMaps
from tasks.common.store import evict
from tasks.data.dataset import SPLITS, Dataset
from tasks.switches import LinearProbe


class Pooled:
    """A data set under one model's transform: identities of its runs, and its features once they are needed."""

    def __init__(self, model: Model, dataset: Dataset, transform: Transform, progress: Progress) -> None:
        self.model, self.dataset, self.options, self.progress = model, dataset, model.options, progress
        self.transform = transform
        self.pooled = self.options.protocol.pooled_of(model.card.label)
        self.names = {split: dataset.splits[split][: self.options.limit] for split in SPLITS}
        self.train = self.names["train"]  # subsets are drawn from what is there to be encoded

    def train_names(self, fraction: str, draw: int) -> tuple[str, ...]:
        return low_data.train_names(self.dataset, fraction, draw, self.train)

    def identity(self, job: Job, draw: int, seed: int | None) -> Identity:
        """What makes this run this run."""
        digest = split_digest(self.train_names(job.fraction, 0), self.names["val"], self.names["test"])
        return identity(self.model, job, draw, seed, self.transform.mode.name, self.dataset.version[:16], digest)

    @property
    def extracted(self) -> int:
        """How many images went through the backbone."""
        return self.table.extracted if "table" in self.__dict__ else 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the extraction noticed."""
        return self.table.warnings if "table" in self.__dict__ else ()

    @cached_property
    def table(self) -> Table:
        """Pooled features of every image of every split, in one pass."""
        names = [name for split in SPLITS for name in self.names[split]]
        table = extract(
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
        if self.options.store_limit is not None:
            evict(self.options.store, self.options.store_limit)
        return table

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def stage_maps(self) -> StageMaps:
        """The frozen stages by name, for what is trained between them and the head."""

        def encode(names: Sequence[str]) -> neck.Maps:
            return self.stages([self.patch(name)[None] for name in names])

        return StageMaps(encode, self.table.names, self.options.compute.batch)

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
            model = self.model.get()
            if switches.backbone_mode == "train":
                model.stochastic()
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

    def results(self, job: Job, draw: int, seeds: Sequence[int | None]) -> Iterator[tuple[int | None, Result]]:
        """The result of each seed; every seed is computed alone, so that it is the same whichever others run beside it."""
        protocol, card = self.options.protocol, self.dataset.card
        multilabel = card.label == "multilabel"
        train_names = self.train_names(job.fraction, draw)
        train, val, test = (self.split(names) for names in (train_names, self.names["val"], self.names["test"]))
        if job.task == "knn":
            yield None, knn.evaluate(train, val, test, card.num_classes, multilabel, protocol.knn)
            return
        switches = protocol.linear_probe.for_dataset(card.name)
        if self.model.card.necks and switches.neck != "none":
            for seed in seeds:
                assert seed is not None, "linear probing is seeded"
                yield seed, self.through_neck(train, val, test, seed, switches)
            return
        exact = None
        if switches.logistic:
            exact = linear_probe.logistic(train, val, test, card.num_classes, multilabel, switches)
        for seed in seeds:
            assert seed is not None, "linear probing is seeded"

            def train_epoch(epoch: int, seed: int = seed) -> Split:
                features = epoch_features(
                    self.model.get(),
                    self.dataset,
                    train_names,
                    self.transform,
                    pooled=self.pooled,
                    switches=switches,
                    seed=seed,
                    epoch=epoch,
                    compute=self.options.compute,
                    progress=self.progress,
                )
                return Split(features, train.labels, train.names)

            fresh = None if switches.uses_stored_features else train_epoch
            result = linear_probe.evaluate(train, val, test, card.num_classes, multilabel, seed, switches, fresh)
            yield seed, result if exact is None else _joined(result, exact)


def _labels(labels: list[Any]) -> torch.Tensor:
    """Integers -> (N,) int64; 0/1 vectors -> (N, C) int64; an absent split stays empty."""
    if not labels:
        return torch.zeros(0, dtype=torch.int64)
    return torch.stack([torch.as_tensor(label, dtype=torch.int64) for label in labels])


def _joined(first: Result, second: Result) -> Result:
    """Two results of the same test images as one; their metrics have different names."""
    return Result(
        first.metrics | second.metrics,
        first.samples | second.samples,
        first.choices | second.choices,
        first.notes + second.notes,
    )
