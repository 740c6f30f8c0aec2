"""`data`: what is here and what is missing, fetching, checking, and the synthetic twin."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.cli import data_root
from harness.progress import Progress
from models.common.errors import UserError
from tasks.data import catalogue, sources
from tasks.data.dataset import DatasetCard


def data_verb(options: argparse.Namespace) -> int:
    """List, fetch or check data sets, or write the synthetic twin."""
    root = options.data_root or data_root()
    if options.what in ("list", "twin") and options.name:
        raise UserError(f"`data {options.what}` takes no names, got {', '.join(options.name)}")
    if options.what in ("fetch", "check") and not options.name:
        raise UserError(f"name the data sets to {options.what}; known: {', '.join(catalogue.names())}")
    match options.what:
        case "list":
            print("\n".join(lines(root)))
            return 0
        case "check":
            from harness import data_check

            return data_check.check(options, root)
        case "twin":
            return write_twin(root, options.quiet)
    for card in [catalogue.card(name) for name in options.name]:
        fetch(card, root, options.yes, options.quiet)
    return 0


def write_twin(root: Path, quiet: bool) -> int:
    """Write the synthetic twin below the data root."""
    from tasks.data import twin

    progress = Progress(quiet=quiet)
    twin.write(root / "twin", lambda done, total: progress("twin", done, total))
    progress.close()
    print(f"the synthetic twin is in {root / 'twin'}; use it with --suite demo")
    return 0


def fetch(card: DatasetCard, root: Path, yes: bool, quiet: bool, endpoint: str | None = None) -> None:
    """Say what would be fetched and where to, ask, and fetch it. `endpoint`: see `sources.offer`."""
    offer = sources.offer(card, root, endpoint=endpoint)
    if offer.files:
        print(f"{card.name}: {sources.amount(offer)} from {offer.origin} to {offer.target}")
        if card.licence:
            print(f"  licence: {card.licence}")
        if not yes and not agreed():
            print(f"{card.name} was not fetched")
            return
    progress = Progress(quiet=quiet)
    try:
        place = sources.bring(offer, root, lambda done, total: progress(card.name, done, total))
    finally:
        progress.close()
    print(f"{card.name} is in {place}")


def agreed() -> bool:
    """The answer to a question on the terminal. Raises `UserError` where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UserError("nobody can be asked here, for the input is no terminal: add --yes to fetch")
    return input("fetch? [y/N] ").strip().lower() in ("y", "yes")


def lines(root: Path) -> Iterator[str]:
    """A line per data set: kind of label, splits, size, and its place or the command that brings it."""
    missing = 0
    for name in catalogue.names():
        card = catalogue.card(name)
        path = catalogue.find(card, root)
        missing += path is None
        splits = "/".join(map(str, card.splits)) if any(card.splits) else "as found"
        size = sources.words(on_disk(path)) if path else _published_size(card)
        state = f"here: {path}" if path else f"missing: {sources.remedy(card).strip('`')}"
        yield f"{name:24} {card.label:10} {splits:>16} {size:>12}  {state}"
    yield f"{len(catalogue.names()) - missing} data sets here, {missing} missing, below {root}"


def _published_size(card: DatasetCard) -> str:
    """The size on disk; where nobody states it, that of the pixels of a GEO-Bench set, which are stored uncompressed."""
    if card.bytes:
        return sources.words(card.bytes)
    if card.family != "geobench":
        return "size unknown"
    per_pixel = sum(1 if band.unit == "uint8" else 2 if band.unit == "dn" else 4 for band in card.bands)
    return f"about {sources.words(sum(card.splits) * card.size**2 * per_pixel)}"


def on_disk(path: Path) -> int:
    """Bytes of all files below a folder."""
    found = (os.path.join(top, file) for top, _, files in os.walk(path) for file in files)
    return sum(os.path.getsize(file) for file in found if os.path.isfile(file))
