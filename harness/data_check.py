"""`data check`: every file of a data set read and held against its card; a summary, and a report as JSON and Markdown."""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from harness.progress import Progress
from leaderboards.files import refusal, staged
from models.common.errors import UserError
from tasks.data import catalogue, sources
from tasks.data.audit_facts import Audit, Complaint, as_json
from tasks.data.dataset import SPLITS, DatasetCard

SHOWN = 20  # complaints in the summary; the report has them all
NAMED = 3  # samples beside a complaint in the summary
MOST_CLASSES = 12  # in the summary


def check(options: argparse.Namespace, root: Path) -> int:
    """Audit the data sets named, write their reports and print summaries. 0: clean, 1: complaints."""
    from tasks.data.audit import audit

    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit} is below 1")
    progress = Progress(quiet=options.quiet)
    found = []
    for card, path in [located(name, root) for name in options.name]:
        report = audit(card, path, options.limit, lambda done, total, name=card.name: progress(name, done, total))
        progress.close()
        written = write(report, options.out)
        show(report)
        print(f"wrote {written[0]} and {written[1].name}\n")
        found.append(report)
    dirty = [report.card.name for report in found if report.complaints]
    print(f"{len(found)} data sets checked, {len(found) - len(dirty)} clean" + _behind(dirty))
    return 1 if dirty else 0


def located(name: str, root: Path) -> tuple[DatasetCard, Path]:
    """The card of a data set and where it lies. Raises `UserError` if it is unknown, or not on this machine."""
    card = catalogue.card(name)
    path = catalogue.find(card, root)
    if path is None:
        raise UserError(f"{card.name} is not below {root}; {sources.remedy(card)}")
    return card, path


def write(report: Audit, folder: Path) -> tuple[Path, Path]:
    """Write `<name>_check.json` and `<name>_check.md`, both or neither. Raises `JournalError` if that fails."""
    document, page = folder / f"{report.card.name}_check.json", folder / f"{report.card.name}_check.md"
    text = json.dumps(as_json(report), indent=1) + "\n"
    with refusal(document), staged(document, text.encode()) as first, staged(page, markdown(report).encode()) as second:
        os.replace(first, document)
        os.replace(second, page)
    return document, page


def show(report: Audit) -> None:
    """Print the summary of one data set."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=120)
    card = report.card
    console.print(f"{card.name}: {card.title}", style="bold")
    console.print(f"  {report.path}")
    for line in facts(report):
        console.print(f"  {line}", soft_wrap=True)
    if report.bands:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("band", "key", "unit", "stored as", "lowest", "highest"):
            table.add_column(column, justify="right" if column in ("lowest", "highest") else "left")
        for row in band_rows(report):
            table.add_row(*row)
        console.print(table)
    if any(report.classes.values()) and card.num_classes <= MOST_CLASSES:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("class")
        for split in SPLITS:
            table.add_column(split, justify="right")
        for row in class_rows(report):
            table.add_row(*row)
        console.print(table)
    for note in report.notes:
        console.print(f"  note: {note}", soft_wrap=True)
    for complaint in report.complaints[:SHOWN]:
        console.print(f"  complaint: {sentence(complaint)}", style="yellow", soft_wrap=True)
    if len(report.complaints) > SHOWN:
        console.print(f"  ... and {len(report.complaints) - SHOWN} more complaints in the report", style="yellow")
    if not report.complaints:
        console.print("  clean", style="green")


def facts(report: Audit) -> Iterator[str]:
    """Counts and sizes, a line each."""
    splits = "/".join(str(report.splits.get(split, 0)) for split in SPLITS)
    whole = "/".join(str(report.whole[split]) for split in SPLITS)
    said = "" if splits == whole or not any(report.whole.values()) else f", the card says {whole}"
    first = f", the first {report.limit} of each split read" if report.limit else ""
    yield f"{splits} samples (train/val/test){said}; {report.read} read{first}"
    if report.sizes:
        most = sorted(report.sizes.items(), key=lambda item: (-item[1], item[0]))
        told = ", ".join(f"{rows}x{columns} ({number})" for (rows, columns), number in most[:5])
        yield f"sizes: {told}" + (f" and {len(most) - 5} more" if len(most) > 5 else "")


def band_rows(report: Audit) -> Iterator[tuple[str, ...]]:
    """Name, key, unit, stored type, lowest and highest value of every band, as text."""
    for band in report.bands:
        ends = ("-" if end is None else f"{end:.6g}" for end in (band.low, band.high))
        yield (band.name, band.key, band.unit, ", ".join(band.dtypes) or "-", *ends)


def class_rows(report: Audit) -> Iterator[tuple[str, ...]]:
    """Name of every class and what each split holds of it: images, and of masks the share of the pixels."""
    pixels = {split: sum(count for _, count in report.classes.get(split, {}).values()) for split in SPLITS}
    for name in report.card.classes:
        cells = []
        for split in SPLITS:
            images, own = report.classes.get(split, {}).get(name, (0, 0))
            share = f" ({100 * own / pixels[split]:.1f}%)" if pixels[split] else ""
            cells.append(f"{images}{share}" if report.splits.get(split) else "-")
        yield (name, *cells)


def sentence(complaint: Complaint, named: int = NAMED) -> str:
    """The complaint with the first samples that it holds for."""
    more = len(complaint.samples) - named
    names = ", ".join(complaint.samples[:named]) + (f" and {more} more" if more > 0 else "")
    return complaint.text + (f": {names}" if names else "")


def markdown(report: Audit) -> str:
    """The whole report as a page."""
    card = report.card
    lines = [f"# Check of {card.name}", "", card.title, "", f"Place: `{report.path}`", ""]
    lines += [f"- {line}" for line in facts(report)]
    lines += ["", "## Complaints", ""]
    lines += [f"- {sentence(one, len(one.samples))}" for one in report.complaints] or ["None."]
    if report.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in report.notes)]
    if report.bands:
        lines += ["", "## Bands", "", *_table(("band", "key", "unit", "stored as", "lowest", "highest"))]
        lines += [_row(row) for row in band_rows(report)]
    if any(report.classes.values()):
        counted = "images, share of the pixels" if card.label in ("mask", "change") else "images"
        lines += ["", f"## Classes ({counted})", "", *_table(("class", *SPLITS))]
        lines += [_row(row) for row in class_rows(report)]
    return "\n".join(lines) + "\n"


def _table(columns: tuple[str, ...]) -> list[str]:
    return [_row(columns), _row(("---",) * len(columns))]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _behind(dirty: list[str]) -> str:
    return f"; complaints about {', '.join(dirty)}" if dirty else ""
