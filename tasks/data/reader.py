"""What readers of files share: samples left out with a reason, statistics of the train split, digests, counts."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from models.common.errors import UserError
from models.common.files import write_whole
from models.common.spectral import Band
from tasks.data.dataset import SPLITS, DatasetCard

if TYPE_CHECKING:
    import numpy as np


@dataclass(kw_only=True)
class Reader:
    """An opened data set (see `tasks.data.dataset.Dataset`): a subclass adds `read` and `label`, and its own files.

    `reading` are the bands that `select` was asked for (empty: all); `refused` the samples that it left out. `cache` is a
    folder in which the statistics of the bands are kept, by version and bands.
    """

    card: DatasetCard
    root: Path
    splits: dict[str, tuple[str, ...]]
    version: str
    warnings: list[str] = field(default_factory=list)
    reading: tuple[str, ...] = ()
    refused: list[str] = field(default_factory=list)
    cache: Path | None = None

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One patch, (C, H, W) or (2, C, H, W), in sensor units and the stored dtype."""
        raise NotImplementedError

    def label(self, name: str) -> Any:
        """The label of one sample."""
        raise NotImplementedError

    def unusable(self, name: str, bands: Sequence[str]) -> str:
        """Why a sample cannot be read in these bands, as the end of a sentence; empty if it can."""
        return ""

    def select(self, bands: Sequence[str]) -> Self:
        """The set without the samples that are unusable in `bands`; a warning per reason. Raises `UserError` if a split
        loses all it had."""
        reasons: dict[str, list[str]] = {}
        for name in dict.fromkeys(name for split in SPLITS for name in self.splits[split]):
            if reason := self.unusable(name, bands):
                reasons.setdefault(reason, []).append(name)
        left_out = {name for names in reasons.values() for name in names}
        splits = {split: tuple(name for name in names if name not in left_out) for split, names in self.splits.items()}
        said = [
            f"{len(names)} of {sum(map(len, self.splits.values()))} samples left out: {reason} ({_some(names)})"
            for reason, names in reasons.items()
        ]
        for split in SPLITS:
            if self.splits[split] and not splits[split]:
                raise UserError(f"{self.root}: the {split} split has no sample left; {'; '.join(said)}")
        return replace(
            self,
            splits=splits,
            warnings=[*self.warnings, *said],
            reading=tuple(bands),
            refused=[*self.refused, *sorted(left_out)],
        )

    @property
    def bands(self) -> tuple[Band, ...]:
        """The card's bands with mean and standard deviation over the finite pixels of the train split (float64).

        Over both dates of pairs. The first call reads the train split, unless `cache` holds them; bands outside `reading`
        get no statistics.
        """
        return self._bands

    @cached_property
    def _bands(self) -> tuple[Band, ...]:
        names = [band.name for band in self.card.bands if not self.reading or band.name in self.reading]
        values = self._measured(names)
        return tuple(
            replace(band, mean=values[band.name][0], std=values[band.name][1], statistics="train split")
            if band.name in values
            else band
            for band in self.card.bands
        )

    def _measured(self, names: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation by band: out of the cache, or by reading the train split once."""
        train = self.splits["train"]
        key = hashlib.sha256(json.dumps([self.version, list(names), train]).encode()).hexdigest()[:16]
        path = self.cache / "statistics" / f"{key}.json" if self.cache else None
        if path and path.is_file():
            with suppress(OSError, ValueError, KeyError, TypeError):
                stored = json.loads(path.read_text(encoding="utf-8"))
                return {name: (float(stored[name][0]), float(stored[name][1])) for name in names}
        found = dict(zip(names, statistics(len(names), (self.read(sample, names) for sample in train)), strict=True))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(found))
        return found

    def partitions(self) -> dict[str, tuple[str, ...]]:
        """None: the set ships no training subsets."""
        return {}


def statistics(channels: int, images: "Iterable[np.ndarray]") -> list[tuple[float, float]]:
    """Mean and standard deviation per channel over all finite pixels of images (..., C, H, W); NaN where there are none.

    In float64, by the pairwise update of Chan, Golub and LeVeque (1983): no cancellation of large sums.
    """
    import numpy as np

    count, mean, squares = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    for image in images:
        for number, values in enumerate(np.moveaxis(image, -3, 0).astype(np.float64)):
            values = values[np.isfinite(values)]
            if values.size:
                total = count[number] + values.size
                step = values.mean() - mean[number]
                squares[number] += values.var() * values.size + step**2 * count[number] * values.size / total
                mean[number] += step * values.size / total
                count[number] = total
    std = np.sqrt(squares / np.maximum(count, 1))
    return [(float(m), float(s)) if n else (nan, nan) for n, m, s in zip(count, mean, std, strict=True)]


def digest(card: DatasetCard, splits: dict[str, tuple[str, ...]], root: Path, files: Iterable[Path]) -> str:
    """sha256 over name and revision, the splits, and every file's path below `root` and size in bytes."""
    sizes = sorted((file.relative_to(root).as_posix(), file.stat().st_size) for file in set(files))
    return hashlib.sha256(json.dumps([card.name, card.revision, splits, sizes]).encode()).hexdigest()


def incomplete(card: DatasetCard, splits: dict[str, tuple[str, ...]]) -> list[str]:
    """A warning where the splits have other sizes than those of the whole set. Raises `UserError` for an empty one."""
    counts = [len(splits[split]) for split in SPLITS]
    for split, count, whole in zip(SPLITS, counts, card.splits, strict=True):
        if whole and not count:
            raise UserError(f"{card.name}: the {split} split is empty; the whole set has {whole} samples there")
    if counts == list(card.splits):
        return []
    found, whole = ("/".join(map(str, numbers)) for numbers in (counts, card.splits))
    return [f"{card.name}: {found} samples (train/val/test) where the whole set has {whole}"]


def missing(card: DatasetCard, files: Iterable[Path]) -> None:
    """Raise `UserError` naming the first of `files` that is not there, and how many are not."""
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise UserError(f"{card.name}: {len(absent)} files are missing, first {absent[0]}; fetch the set again")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
