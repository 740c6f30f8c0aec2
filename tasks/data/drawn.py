"""Splits that a paper drew and never published, drawn here once: by a hash of the name, so that nothing else matters.

A name's share is the first 32 bits of sha256(`<SEED>:<name>`) as a number from 0 to 1, and where it falls decides. A
file that is missing, or one more, moves no other file; no generator's version is involved.
"""

import hashlib
from collections.abc import Iterable

SEED = 240509922  # X-STARS is arXiv 2405.09922


def share(name: str) -> float:
    """Where a name falls between 0 and 1."""
    return int(hashlib.sha256(f"{SEED}:{name}".encode()).hexdigest()[:8], 16) / 2**32


def drawn(name: str, test: float = 0.2, val: float = 0.2) -> str:
    """The split of one name: `test` below that share, `val` in the stretch behind it, else `train`."""
    own = share(name)
    return "test" if own < test else "val" if own < test + val else "train"


def stratified(names: Iterable[str], test: int, val: int) -> dict[str, tuple[str, ...]]:
    """Exact numbers of test and validation names out of one class: the lowest shares are test, the next validation."""
    ordered = sorted(names, key=share)
    parts = {"train": ordered[test + val :], "val": ordered[test : test + val], "test": ordered[:test]}
    return {split: tuple(sorted(part)) for split, part in parts.items()}
