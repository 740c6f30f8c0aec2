"""Training subsets, all living on one extraction.

GEO-Bench ships one partition per fraction (`0.10x`): drawn without a seed on record, unstratified, and not nested in each
other (ServiceNow/geo-bench, `make_benchmark/generate_partitions.py`). For every data set there are draws of ours (`0.10`):
seeded, stratified, and nested, so that a draw at 5% is part of the same draw at 10%.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from models.common.errors import UserError
from tasks.data.dataset import Dataset, DatasetCard

FULL = "1.00x"
SEED = 2026  # of the draws; with the number of a draw it fixes the order of all training images
NO_CLASS = -1  # the stratum of images without any class


def fraction_name(text: str, drawn: bool = False) -> str:
    """`0.1`, `0.10`, `0.10x` -> `0.10x`, or `0.10` for a draw of ours; raises `UserError` outside 0 < fraction <= 1."""
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        raise UserError(f"--train-fraction {text!r} is no number; give 0.01 ... 1.00") from None
    if not 0 < value <= 1:
        raise UserError(f"--train-fraction {text} is not above 0 and at most 1")
    if round(value, 2) != value:
        raise UserError(f"--train-fraction {text}: fractions have two decimals at most, 0.01 ... 1.00")
    return f"{value:.2f}" if drawn and value < 1 else f"{value:.2f}x"


def available(fraction: str, card: DatasetCard) -> str:
    """The fraction as this data set can have it: `0.10x` becomes our draw `0.10` where the set ships no partitions."""
    return fraction if fraction == FULL or fraction in card.fractions else fraction.removesuffix("x")


def note(fraction: str) -> str:
    """What a reader of a number must know about its training subset, in one sentence; empty for all of the images."""
    if fraction == FULL:
        return ""
    if fraction.endswith("x"):
        return (
            f"trained on the data set's own partition {fraction}: one random draw, unseeded, unstratified, "
            "not nested in the larger ones"
        )
    return (
        f"trained on a share of {fraction} drawn here: seeded ({SEED}), stratified by class, nested in the larger ones"
    )


def notes(dataset: Dataset, fraction: str, draw: int = 0, train: Sequence[str] | None = None) -> list[str]:
    """`note`, and which classes of the training images are lost in this subset; empty for all of the images."""
    if fraction == FULL:
        return []
    names = tuple(dataset.splits["train"] if train is None else train)
    classes = dict(zip(names, _classes(_Train(_key(dataset), names, dataset)), strict=True))
    left = {one for name in train_names(dataset, fraction, draw, train) for one in classes.get(name, ())}
    lost = sorted({one for of_image in classes.values() for one in of_image} - left)
    told = [dataset.card.classes[one] if one < dataset.card.num_classes else str(one) for one in lost]
    return [note(fraction)] + ([f"no training image of {', '.join(told)} is left at {fraction}"] if told else [])


def train_names(dataset: Dataset, fraction: str, draw: int = 0, train: Sequence[str] | None = None) -> tuple[str, ...]:
    """The training samples at a fraction: all of them (`1.00x`), a partition of the data set's own (`0.10x`), or a draw.

    `train` are the samples to choose from (the data set's training split unless given). Raises `UserError` if the data
    set ships no such partition. The first draw of a data set reads all training labels, later ones none.
    """
    names = tuple(dataset.splits["train"] if train is None else train)
    if fraction == FULL:
        return names
    if not fraction.endswith("x"):
        return _drawn(_Train(_key(dataset), names, dataset), fraction, draw)
    partitions = dataset.partitions()
    name = f"{fraction}_train"
    if name not in partitions:
        known = ", ".join(sorted(partitions)) or "none"
        raise UserError(
            f"{dataset.card.name} ships no training partition {name!r} (it has {known}); `--draws 5` draws subsets from any set"
        )
    allowed = set(names)
    return partitions[name] if train is None else tuple(one for one in partitions[name] if one in allowed)


def present(label: Any, dataset: Dataset) -> tuple[int, ...]:
    """The classes of one image: its only one, those of a 0/1 vector, or those that occur in its mask."""
    array = np.asarray(label)
    if array.ndim == 0:
        return (int(array),)
    if dataset.card.label == "multilabel":
        return tuple(int(index) for index in np.flatnonzero(array))
    return tuple(int(value) for value in np.unique(array) if value != dataset.card.ignore)


@dataclass(frozen=True)
class _Train:
    """The training samples of an opened data set, as a key: equal for equal content, whatever object holds it."""

    key: tuple[str, str, str]
    names: tuple[str, ...]
    dataset: Dataset = field(compare=False)


def _key(dataset: Dataset) -> tuple[str, str, str]:
    return dataset.card.name, dataset.version, str(dataset.root)


@lru_cache(maxsize=4)
def _classes(train: _Train) -> tuple[tuple[int, ...], ...]:
    """The classes of every training sample. Reads its labels once: each run of each draw and seed asks for them."""
    return tuple(present(train.dataset.label(name), train.dataset) for name in train.names)


@lru_cache(maxsize=64)
def _drawn(train: _Train, fraction: str, draw: int) -> tuple[str, ...]:
    return draws(train.names, _classes(train), float(fraction), draw)


def draws(names: Sequence[str], classes: Sequence[Sequence[int]], fraction: float, draw: int) -> tuple[str, ...]:
    """A share of `names`, in their order; `classes` are those of each image, `draw` numbers independent draws.

    Each image counts for the rarest of its classes, so that rare ones are not lost among common ones. All images are put
    into one order, which depends neither on the fraction nor on the order of `names`: first a few that hold every class
    between them, at most one per class; then the rest, such that every beginning holds each stratum in its proportion. A
    fraction takes the beginning of that order: `round(fraction * N)` images, at least one.
    """
    rng = np.random.default_rng((SEED, draw))
    of_image = {name: frozenset(held) for name, held in sorted(zip(names, classes, strict=True))}
    often = Counter(one for held in of_image.values() for one in held)
    rarity = sorted(often, key=lambda one: (often[one], one))
    strata: dict[int, list[str]] = {}
    for name, held in of_image.items():
        strata.setdefault(min(held, key=rarity.index, default=NO_CLASS), []).append(name)
    shuffled = {
        one: [members[index] for index in rng.permutation(len(members))] for one, members in sorted(strata.items())
    }
    cover = _cover(rarity, shuffled, of_image)
    place: dict[str, tuple[int, float]] = {}
    for members in shuffled.values():
        members.sort(key=lambda name: name not in cover)  # stable: those at the front count for their stratum
        steps = (np.arange(len(members)) + rng.random()) / len(members)
        for name, step in zip(members, steps, strict=True):
            place[name] = (0, rng.random()) if name in cover else (1, float(step))
    order = sorted(of_image, key=lambda name: (place[name], name))
    taken = set(order[: max(1, round(fraction * len(names)))])
    return tuple(name for name in names if name in taken)


def _cover(
    rarity: Sequence[int], shuffled: Mapping[int, Sequence[str]], of_image: Mapping[str, frozenset[int]]
) -> set[str]:
    """Images that hold every class between them, at most one per class: from the rarest class on, one where none is yet."""
    found: dict[int, list[str]] = {}
    for members in shuffled.values():
        for name in members:
            for one in of_image[name]:
                found.setdefault(one, []).append(name)
    cover: set[str] = set()
    held: set[int] = set()
    for one in rarity:
        if one not in held:
            cover.add(found[one][0])
            held |= of_image[found[one][0]]
    return cover
