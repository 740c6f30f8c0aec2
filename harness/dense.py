"""One model on one data set labelled per pixel: stored stages, a head per seed, and the pictures of what it predicts."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from harness import pictures
from harness.measure import Model, identity, split_digest
from harness.plan import Job
from harness.progress import Progress
from leaderboards.results import Identity
from models.common.backbone import Backbone
from models.common.bands import Transform
from tasks import change_detection, segmentation
from tasks.common import low_data
from tasks.common.scenes import Maps, Scenes
from tasks.common.splits import Result
from tasks.common.stage_maps import StageMaps
from tasks.data.dataset import SPLITS, Dataset, with_validation
from tasks.switches import ChangeDetection, Segmentation

VIT_BLOCKS: dict[tuple[int, ...], str] = {
    (3, 5, 8, 11): "vit_base_blocks",
    (7, 11, 15, 23): "vit_large_blocks",
}  # of the cards


class PerPixel:
    """A data set under one model's transform: identities of its runs, and its scenes once they are needed."""

    def __init__(self, model: Model, dataset: Dataset, transform: Transform, progress: Progress, task: str) -> None:
        self.model, self.dataset, self.options, self.progress = model, dataset, model.options, progress
        self.transform = transform
        self.switches = self.options.protocol.dense(task, dataset.card.name, model.card.label)
        splits = with_validation(dataset) if self.options.protocol.own_validation == "yes" else dataset.splits
        self.names = {split: tuple(splits[split][: self.options.limit]) for split in SPLITS}
        self.train = self.names["train"]  # subsets are drawn from what is there to be encoded

    def train_names(self, fraction: str, draw: int) -> tuple[str, ...]:
        return low_data.train_names(self.dataset, fraction, draw, self.train)

    def identity(self, job: Job, draw: int, seed: int | None) -> Identity:
        """What makes this run this run."""
        digest = split_digest(self.train_names(job.fraction, 0), self.names["val"], self.names["test"])
        return identity(self.model, job, draw, seed, self.transform.mode.name, self.dataset.version[:16], digest)

    @property
    def extracted(self) -> int:
        """How many tiles (of dates) went through the backbone to be stored."""
        scenes = self.__dict__.get("scenes")
        return scenes.maps.extracted if scenes and "maps" in scenes.__dict__ else 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the store and the canary noticed."""
        scenes = self.__dict__.get("scenes")
        if not scenes:
            return ()
        stored = scenes.maps.warnings if "maps" in scenes.__dict__ else []
        return tuple(dict.fromkeys([*self.refusal, *scenes.canary.warnings(), *stored]))

    def close(self) -> None:
        """Let go of the stored maps, so that another data set may take their place."""
        if "scenes" in self.__dict__ and "maps" in self.scenes.__dict__:
            self.scenes.maps.close()

    @property
    def refusal(self) -> tuple[str, ...]:
        """Why this protocol runs the backbone in every epoch, if it does."""
        if self.switches.uses_stored_features:
            return ()
        reasons = {
            f"augments images ({self.switches.augmentation})": self.switches.augmentation != "none",
            "leaves the backbone in train mode": self.switches.backbone_mode == "train",
            "fine-tunes the backbone": self.switches.backbone == "finetuned",
        }
        why = " and ".join(reason for reason, holds in reasons.items() if holds)
        return (f"training features are not stored: the protocol {why}",)

    def backbone(self) -> Backbone:
        """The frozen backbone, tapped where the protocol says."""
        model = self.model.get()
        name = VIT_BLOCKS.get(model.card.blocks)
        blocks = getattr(self.switches, name) if name else model.card.blocks
        bare = self.switches.taps == "layer_out"
        return model if blocks == model.card.blocks and not bare else model.tapping(blocks, bare)

    @cached_property
    def scenes(self) -> Scenes:
        """Tiles, labels and stages."""
        fuse = change_detection.fuse(self.switches) if isinstance(self.switches, ChangeDetection) else None
        return Scenes(
            self.dataset,
            self.transform,
            self.backbone,
            self.switches,
            self.options.compute,
            self.store,
            self.names,
            fuse,
        )

    def store(self, encode: Callable[[Sequence[str]], Maps], keys: Sequence[str]) -> StageMaps:
        """Stage maps by key on disk, in the precision that the protocol asks for."""
        options, switches = self.options, self.switches
        blocks = self.backbone().card.blocks
        key = {
            "weights": self.model.located.digest,
            "card": self.model.revision,
            "transform": self.transform.describe(),
            "taps": [list(blocks), switches.taps],
            "dataset": [self.dataset.card.name, self.dataset.version, [band.name for band in self.dataset.bands]],
            "precision": options.compute.precision,
        }
        return StageMaps(
            encode,
            keys,
            options.compute.batch,
            kind=switches.stage_store if switches.uses_stored_features else "none",
            store=options.store,
            key=key,
            limit=options.store_limit,
            progress=lambda done, total: self.progress(self.dataset.card.name, done, total),
            remarks=lambda: self.scenes.canary.warnings(),
        )

    def results(self, job: Job, draw: int, seeds: Sequence[int | None]) -> Iterator[tuple[int | None, Result]]:
        """The result of each seed; every seed is trained alone, so that it is the same whichever others run beside it."""
        train = self.train_names(job.fraction, draw)
        where = f"{self.dataset.card.name} {job.task.replace('_', ' ')}"
        for seed in seeds:
            assert seed is not None, "heads are seeded"

            def report(what: str, done: int, total: int, seed: int = seed) -> None:
                self.progress(f"{where} seed {seed} {what}", done, total)

            keep = self.names["test"][: self.options.panels] if seed == seeds[0] else ()
            splits = (train, self.names["val"], self.names["test"])
            if isinstance(self.switches, Segmentation):
                result = segmentation.evaluate(self.scenes, *splits, seed, self.switches, report=report, keep=keep)
            else:
                assert isinstance(self.switches, ChangeDetection)
                result = change_detection.evaluate(self.scenes, *splits, seed, self.switches, report=report, keep=keep)
            if stored := self.scenes.maps.error if "maps" in self.scenes.__dict__ else None:
                result.facts["stage_store_error"] = {"maximum": stored.maximum, "rms": stored.rms}
            if keep:
                run_id = self.identity(job, draw, seed).run_id
                result.facts["panels"] = str(pictures.draw(self, job.task, result, run_id))
            yield seed, result
