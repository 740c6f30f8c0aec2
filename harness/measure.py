"""What every run needs: the model, built once and watched; the identity of a run; what its record says beside numbers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import models
from harness import provenance
from harness.plan import Job
from harness.pretraining.settings import product_facts
from leaderboards.results import Identity
from models.common.backbone import Backbone
from models.common.bands import Transform
from models.common.card import Card
from models.common.errors import UserError
from models.common.weights import Located, module_digest
from tasks.common.features import Compute
from tasks.common.splits import Result
from tasks.data.dataset import Dataset
from tasks.protocols import Protocol


@dataclass(frozen=True)
class Options:
    """What the command line decided, besides the plan. `panels`: how many test images are drawn into `pictures`."""

    protocol: Protocol
    preset: Protocol
    weights: str
    label: str
    cache: Path
    store: Path
    store_limit: int | None
    compute: Compute
    limit: int | None
    force: bool
    strict: bool
    verbose: bool
    panels: int
    pictures: Path


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


def split_digest(*splits: Sequence[str]) -> str:
    """A digest of the sample names of train, val and test, in their order."""
    return hashlib.sha256("\n\n".join("\n".join(part) for part in splits).encode()).hexdigest()[:16]


def identity(
    model: Model,
    job: Job,
    draw: int,
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
        draw=draw,
        seed=seed,
        limit=options.limit,
        precision=options.compute.precision,
    )


def label_of(job: Job, options: Options) -> str:
    """What --label says, then the switches that --set moved away from the preset."""
    now, preset = (
        protocol.switches(job.task, job.dataset.name, job.card.label) for protocol in (options.protocol, options.preset)
    )
    moved = [f"{name}={_word(now[name])}" for name in sorted(now) if now[name] != preset.get(name)]
    return " ".join(([options.label] if options.label else []) + moved)


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def facts(
    job: Job,
    options: Options,
    located: Located,
    dataset: Dataset,
    transform: Transform,
    warnings: Sequence[str],
    extracted: int,
    result: Result,
    seconds: float,
) -> dict[str, Any]:
    """The provenance of one run."""
    return {
        **provenance.machine(options.compute.device),
        "label": label_of(job, options),
        "given": options.label,
        "batch_size": options.compute.batch,
        "seconds": round(seconds, 3),
        "images_encoded": extracted,
        "warnings": [*dataset.warnings, *warnings, *transform.notes, *result.notes],
        "dataset_notes": list(getattr(dataset, "notes", ())),
        "transform": transform.describe(),
        "choices": result.choices,
        "pretraining": product_facts(located.path, located.digest) if located.path else None,
        **result.facts,
    }
