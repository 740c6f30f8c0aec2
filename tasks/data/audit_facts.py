"""What an audit of a data set says: complaints, facts about bands, sizes and classes, as plain values. Standard library."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.data.dataset import DatasetCard


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong, as a sentence, and all samples or files that it holds for."""

    text: str
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class BandFacts:
    """What one band holds in all images read: extremes of the finite values (None: there are none), and stored dtypes."""

    name: str
    key: str
    unit: str
    low: float | None
    high: float | None
    dtypes: tuple[str, ...]


@dataclass
class Audit:
    """What was found. `read` counts the samples opened, `splits` those per split, `whole` what the card says of them.

    `sizes`: (rows, columns) -> images. `classes`: split -> class name -> (images that hold it, its pixels, 0 without a
    mask). `limit` is the cap on samples per split (None: all).
    """

    card: DatasetCard
    path: Path
    limit: int | None
    version: str = ""
    read: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    bands: list[BandFacts] = field(default_factory=list)
    classes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def cap(found: Audit) -> str:
    """Said behind what holds for a part of the samples only."""
    return f" (of the first {found.limit} per split)" if found.limit else ""


def listed(names: Iterable[str]) -> str:
    """Class names in a sentence, the first six of them."""
    names = list(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more classes" if len(names) > 6 else "")


def as_json(found: Audit) -> dict[str, Any]:
    """The audit as plain JSON values."""
    return {
        "name": found.card.name,
        "path": str(found.path),
        "version": found.version,
        "limit": found.limit,
        "samples_read": found.read,
        "splits": found.splits,
        "splits_of_the_card": found.whole,
        "sizes": [
            {"rows": rows, "columns": columns, "images": number} for (rows, columns), number in found.sizes.items()
        ],
        "bands": [vars(band) for band in found.bands],
        "classes": {
            split: {name: {"images": images, "pixels": pixels} for name, (images, pixels) in table.items()}
            for split, table in found.classes.items()
        },
        "complaints": [{"text": one.text, "samples": list(one.samples)} for one in found.complaints],
        "notes": found.notes,
    }
