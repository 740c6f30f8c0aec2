"""suites x models x protocol -> jobs to do and jobs skipped, each with its reason. Pure: no torch, no image is opened."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import tasks
from models.common.bands import Transform, compile_transform
from models.common.card import Card
from models.common.errors import UserError
from models.common.spectral import Band
from models.common.weights import Located
from tasks.common.low_data import available
from tasks.data.dataset import DatasetCard
from tasks.protocols import Protocol
from tasks.suites import Cell


@dataclass(frozen=True)
class Job:
    """One model on one task of one data set at one training fraction: a run per draw and seed (None: without seed)."""

    card: Card
    dataset: DatasetCard
    path: Path
    task: str
    primary: bool
    fraction: str
    seeds: tuple[int | None, ...]
    draws: tuple[int, ...] = (0,)

    @property
    def runs(self) -> list[tuple[int, int | None]]:
        """Draw and seed of every run."""
        return [(draw, seed) for draw in self.draws for seed in self.seeds]


@dataclass(frozen=True)
class Skip:
    """What will not run, and why; `mendable` is True where the caller's own input is at fault (weights, say)."""

    model: str
    dataset: str
    task: str
    reason: str
    mendable: bool = False


def compile_for(card: Card, bands: Sequence[Band], protocol: Protocol, task: str, dataset: str) -> Transform:
    """The transform of one model on these bands under the protocol's switches for one task and data set."""
    input_size, fit = protocol.sizes(task, dataset, card.label)
    return compile_transform(
        card,
        bands,
        normalisation=protocol.normalisation,
        input_size=input_size,
        fit=fit,
        missing_bands=protocol.missing_bands,
        only_rgb=protocol.bands == "rgb",
        swap_rgb_std=protocol.swap_rgb_std,
    )


def without_statistics(bands: Iterable[Band]) -> tuple[Band, ...]:
    """Bands as a card declares them, with neutral statistics: enough to see whether a transform compiles."""
    return tuple(replace(band, mean=0.0, std=1.0) for band in bands)


def plan(
    cards: Sequence[Card],
    cells: Sequence[tuple[Cell, DatasetCard]],
    protocol: Protocol,
    *,
    fractions: Sequence[str],
    draws: Sequence[int] = (0,),
    find: Callable[[DatasetCard], Path | None],
    remedy: Callable[[DatasetCard], str],
    weights: Callable[[Card], Located | str],
) -> tuple[list[Job], list[Skip]]:
    """Every cell for every model and fraction, as a job or as a skip.

    `find` says where a data set lies (None: not here, then `remedy` says what to do), `weights` where a model's weights
    are or, as a string, why there are none.
    """
    jobs: list[Job] = []
    skips: list[Skip] = []
    paths = {dataset.name: find(dataset) for _, dataset in cells}
    for card in cards:
        # Asked only where nothing else is in the way, because it may download; and once per model.
        find_weights = cache(partial(weights, card))
        for cell, dataset in cells:
            path = paths[dataset.name]
            reason, mendable = None, False
            if cell.task not in tasks.names():
                reason = f"{dataset.name}: task {cell.task} is not part of this version"
            elif path is None:
                reason = f"{dataset.name}: not on this machine; {remedy(dataset)}"
            else:
                try:
                    compile_for(card, without_statistics(dataset.bands), protocol, cell.task, dataset.name)
                except UserError as error:
                    reason = f"{dataset.name}: {error}"
                if reason is None and isinstance(found := find_weights(), str):
                    reason, mendable = found, True
            if reason is not None or path is None:
                skips.append(Skip(card.label, dataset.name, cell.task, reason or "", mendable))
                continue
            seeds = protocol.seeds_of(cell.task)
            jobs += [
                Job(
                    *(card, dataset, path, cell.task, cell.primary, fraction, seeds),
                    draws=(0,) if fraction.endswith("x") else tuple(draws) or (0,),
                )
                for fraction in (available(wanted, dataset) for wanted in fractions)
            ]
    return jobs, skips


def skip_lines(skips: Sequence[Skip]) -> list[str]:
    """The skips as lines, each reason once, with the models or tasks it holds for only where they are not all the same."""
    reasons: dict[str, list[Skip]] = {}
    for skip in skips:
        reasons.setdefault(skip.reason, []).append(skip)
    lines = []
    for reason, group in reasons.items():
        models = list(dict.fromkeys(skip.model for skip in group))
        everyone = len(models) == len({skip.model for skip in skips}) and len(models) > 1
        lines.append(f"skipped {'' if everyone or len(models) > 3 else ', '.join(models) + ' on '}{reason}")
    return lines
