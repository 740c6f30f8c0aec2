"""What tells two rows apart that would otherwise read the same: a switch overridden, another checkpoint, other data."""

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from leaderboards.results import Identity

DATA = ("dataset_version", "split_digest")
FIELDS = ("weights", "card_revision", "mode", *DATA, "precision")
UNSET = "unset"
Family = tuple[str, ...]


def short_weights(weights: str) -> str:
    """The CSV's word for the weights: `random`, `none`, or the first eight digits of the checkpoint's digest."""
    return "random" if weights.startswith("random") else weights[:8]


def labels(identities: Sequence[Identity], given: Sequence[str]) -> list[str]:
    """The label of every row: the caller's words (`given`), then what sets it apart, then `[limit N]` for limited runs.

    Rows of one model, weights, given label and protocol are a family. Where two rows of a family stand on the same data
    set, task, fraction and limit, they differ in switches or in fields the CSV has no column for. Each such difference
    is written as `name=value` (`unset` for a switch that one of them lacks), in every row of the family that departs
    from the usual value, so that a model's ordinary rows keep their label on all data sets. Usual is what most rows
    have: among all models for switches, precision and the version of the data, within the family for the rest; the
    newest card revision.
    """
    families = [_family(identity, label) for identity, label in zip(identities, given, strict=True)]
    facts = [_facts(identity) for identity in identities]
    varying: defaultdict[Hashable, set[str]] = defaultdict(set)
    first: dict[Hashable, dict[str, str]] = {}
    tally: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for family, identity, own in zip(families, identities, facts, strict=True):
        cell = (family, identity.dataset, identity.task, identity.train_fraction, identity.limit)
        other = first.setdefault(cell, own)
        for name in own.keys() | other.keys():
            if own.get(name) != other.get(name):
                varying[family if name in FIELDS else (family, identity.task)].add(name)
        for name in own:
            tally[name, _context(name, family, identity)][own[name]] += 1

    written = []
    for family, identity, own, label in zip(families, identities, facts, given, strict=True):
        words = [label] if label else []
        for name in sorted(varying[family] | varying[family, identity.task]):
            value = own.get(name, UNSET)
            if value != _usual(name, tally[name, _context(name, family, identity)]):
                words.append(f"{name}={value.strip('"')}")
        words += [f"[limit {identity.limit}]"] if identity.limit is not None else []
        written.append(" ".join(words))
    return written


def _family(identity: Identity, label: str) -> Family:
    return identity.model, identity.variant, short_weights(identity.weights), label, identity.protocol


def _facts(identity: Identity) -> dict[str, str]:
    values: dict[str, Any] = {name: getattr(identity, name) for name in FIELDS}
    return {name: json.dumps(value, separators=(",", ":")) for name, value in {**identity.switches, **values}.items()}


def _context(name: str, family: Family, identity: Identity) -> Hashable:
    """Among which rows a value may be the usual one."""
    if name in ("weights", "card_revision"):
        return family
    if name == "mode":
        return family, identity.dataset
    if name in DATA:
        return identity.dataset, identity.train_fraction, identity.limit
    return identity.protocol, identity.task


def _usual(name: str, values: Counter[str]) -> str:
    if name == "card_revision":
        return max(values, key=int)
    return min(values, key=lambda value: (-values[value], value))
