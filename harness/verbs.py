"""What each verb does. Torch and everything heavy is imported inside the verbs that compute."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import models
from harness import select
from harness.cli import cache_folder, data_root, words
from harness.data_verbs import data_verb
from harness.listing import list_verb
from harness.plan import Job, Skip, compile_for, plan, skip_lines, without_statistics
from harness.pretraining.verb import pretrain_verb
from models.common.card import Card
from models.common.errors import UserError, choose
from models.common.weights import Located
from tasks.data import catalogue, sources
from tasks.data.dataset import DatasetCard
from tasks.protocols import PROTOCOLS, Protocol
from tasks.suites import SUITES, Cell

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Planned:
    """What one protocol has to do on the chosen cells: jobs, skips, and the weights found per model."""

    protocol: Protocol
    jobs: list[Job]
    skips: list[Skip]
    found: dict[str, Located]


def _planned(options: argparse.Namespace, fetch: bool) -> tuple[str, list[tuple[Cell, DatasetCard]], list[Planned]]:
    """What `run` and `plan` share: suite name, cells, and what there is to do under each protocol."""
    cards = select.cards(options.model)
    suite, cells = select.suite_cells(options)
    protocols, fractions = select.protocols(options), select.fractions(options)
    choice = options.weights or protocols[0].weights
    if choice not in ("official", "random") and len(cards) > 1:
        raise UserError("--weights PATH is one model's checkpoint; give one --model with it")
    root = options.data_root or data_root()
    synthetic = {card.name for _, card in cells if card.location.startswith("twin/")}
    if synthetic and fetch:
        from tasks.data import twin

        twin.write(root / "twin")
    found: dict[str, Located] = {}

    def weights(card: Card) -> Located | str:
        located = select.weights(choice, cache_folder(), fetch)(card)
        if isinstance(located, Located):
            found[card.label] = located
        return located

    def find(card: DatasetCard) -> Path | None:
        return root / card.location if card.name in synthetic else catalogue.find(card, root)

    parts = []
    for protocol in protocols:
        jobs, skips = plan(
            *(cards, cells, protocol),
            fractions=fractions,
            draws=range(options.draws),
            find=find,
            remedy=sources.remedy,
            weights=weights,
        )
        parts.append(Planned(protocol, jobs, skips, found))
    return suite, cells, parts


def run_verb(options: argparse.Namespace) -> int:
    """Measure, record, write the CSV and the rank table, print the final table."""
    choose("precision", options.precision, PRECISIONS)
    for name, value in (
        ("--limit", options.limit),
        ("--batch-size", options.batch_size),
        ("--workers", options.workers),
        ("--panels", options.panels or 1),
    ):
        if value is not None and value < 1:
            raise UserError(f"{name} {value} is below 1")
    check_device_name(options.device)
    suite, cells, parts = _planned(options, fetch=True)
    skips = list(dict.fromkeys(skip for part in parts for skip in part.skips))
    lines = skip_lines(skips)
    if not any(part.jobs for part in parts):
        mended = next((skip.reason for skip in skips if skip.mendable), None)
        if mended or len(lines) == 1:
            raise UserError(mended or f"nothing to run: {lines[0]}")
        print("\n".join(lines), file=sys.stderr)
        raise UserError(f"nothing to run: all {len(skips)} cells of {suite} are skipped, for the reasons above")

    from harness import run, table
    from harness.measure import Options
    from harness.progress import Progress
    from leaderboards.results import Journal
    from tasks.common.features import Compute
    from tasks.common.store import parse_size

    first = parts[0].protocol
    settings = Options(
        protocol=first,
        preset=PROTOCOLS[first.name],
        weights=options.weights or first.weights,
        label=options.label,
        cache=cache_folder(),
        store=options.store or options.runs / "store",
        store_limit=parse_size(options.store_limit) if options.store_limit else None,
        compute=Compute(resolve_device(options.device), options.precision, options.batch_size, options.workers),
        limit=options.limit,
        force=options.force,
        strict=options.strict,
        verbose=options.verbose,
        panels=options.panels,
        pictures=options.out / "pictures",
    )
    progress = Progress(quiet=options.quiet)
    for line in lines:
        progress.line(line)
    journal = Journal(options.runs)
    outcome = run.Outcome()
    for part in parts:
        run.run(part.jobs, part.found, replace(settings, protocol=part.protocol), journal, progress, outcome)
    written = table.write(journal, suite, cells, options.out)
    for board in written:
        table.show(board)
    _draw_curves(journal, suite, written, options.out)
    for warning in dict.fromkeys(outcome.warnings):
        print(f"warning: {warning}")
    for picture in outcome.pictures:
        print(f"picture: {picture}")
    for what, reason, mendable in outcome.failures:
        text = reason if reason.startswith(f"{what}: ") else f"{what}: {reason}"
        print(f"harness: {' '.join(text.split()) if mendable else text}", file=sys.stderr)
    print(
        f"{outcome.computed} runs computed, {outcome.already_done} already in the journal, {len(lines)} skips, "
        f"{len(outcome.failures)} failures; {outcome.extracted} images encoded"
    )
    code = 0 if not outcome.failures else 2 if all(mendable for _, _, mendable in outcome.failures) else 1
    if options.json:
        print(json.dumps(_summary(suite, first, outcome, lines, written, code)))
    return code


def _summary(suite: str, protocol: Protocol, outcome: Any, lines: list[str], written: Any, code: int) -> dict[str, Any]:
    return {
        "suite": suite,
        "protocol": protocol.name,
        "computed": outcome.computed,
        "already_done": outcome.already_done,
        "images_encoded": outcome.extracted,
        "skipped": lines,
        "failures": [{"what": what, "reason": reason} for what, reason, _ in outcome.failures],
        "csv": str(written[0].csv) if written else None,
        "ranks": str(written[0].ranks) if written else None,
        "exit": code,
    }


def plan_verb(options: argparse.Namespace) -> int:
    """Print what a run would do and what it would skip."""
    suite, cells, parts = _planned(options, fetch=False)
    datasets = dict.fromkeys(cell.dataset for cell, _ in cells)
    runs = jobs = 0
    for part in parts:
        swept = f" ({SUITES[suite].sweep[parts.index(part)]})" if len(parts) > 1 else ""
        print(f"suite {suite}, protocol {part.protocol.name}{swept}: {len(datasets)} data sets, {len(cells)} cells")
        for job in part.jobs:
            bands = without_statistics(job.dataset.bands)
            mode = compile_for(job.card, bands, part.protocol, job.task, job.dataset.name).mode.name
            seeds = "" if job.seeds == (None,) else f", seeds {','.join(map(str, job.seeds))}"
            draws = "" if job.draws == (0,) else f", {len(job.draws)} draws"
            images = sum(job.dataset.splits) or "unknown"
            where = f"{job.card.label:14} {job.dataset.name:22} {job.task:16} {mode:4}"
            print(f"  {where} train {job.fraction}{draws}{seeds}, {images} images")
            runs += len(job.runs)
        jobs += len(part.jobs)
    for label, located in parts[0].found.items():
        if located.kind == "official" and located.path is None:
            print(f"  {label}: its official weights are not on this machine yet; `run` fetches them or says what to do")
    skips = list(dict.fromkeys(skip for part in parts for skip in part.skips))
    for line in skip_lines(skips):
        print(f"  {line}")
    print(f"{runs} runs in {jobs} jobs; {len(skips)} cells skipped")
    if options.json:
        print(json.dumps({"suite": suite, "runs": runs, "jobs": jobs, "skipped": skip_lines(skips)}))
    return 0


def rank_verb(options: argparse.Namespace) -> int:
    """Rebuild the CSV and the rank table from the journal alone; or print the tables of a paper, or both."""
    if options.published is None:
        if options.table:
            raise UserError("--table names a table of a paper; give --published deo or xstars with it")
        if options.suite is None:
            raise UserError("rank needs --suite NAME, or --published deo or xstars")
    if options.suite is not None:
        _rank_suite(options)
    if options.published is not None:
        from harness import published

        published.show(options.published, options.table or (), options.runs)
    return 0


def _rank_suite(options: argparse.Namespace) -> None:
    from harness import table
    from leaderboards.results import Journal

    suite = SUITES[choose("suite", options.suite, SUITES)]
    if not options.runs.is_dir():
        raise UserError(f"no journal in {options.runs}; `python -m harness run` writes one")
    cells = [(cell, catalogue.card(cell.dataset)) for cell in suite.cells]
    journal = Journal(options.runs)
    written = table.write(journal, suite.name, cells, options.out)
    if not written:
        raise UserError(f"the journal in {options.runs} holds no finished run of suite {suite.name!r}")
    for board in written:
        table.show(board)
    _draw_curves(journal, suite.name, written, options.out)


def _draw_curves(journal: Any, suite: str, written: list[Any], out: Path) -> None:
    """Learning curves, where the journal holds more than one training fraction of the suite."""
    from harness import curves

    drawn = curves.write(journal, suite, written[0], out) if written else None
    if drawn:
        print(f"wrote {drawn.csv} and {drawn.picture}")


def verify_verb(options: argparse.Namespace) -> int:
    """Parity with the authors' code; exit code 1 above tolerance."""
    from harness.verify import verify

    labels = [label for word in options.model for label in words(word)]
    everything = labels == ["all"]
    for label in [] if everything else labels:
        models.card(label)
    return verify(None if everything else labels, options.kits, print)


def check_device_name(name: str) -> None:
    """Refuse a device word that is none, before anything heavy is imported."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        choose("device", name, ["auto", "cpu", "cuda", "cuda:0"])


def resolve_device(name: str) -> str:
    """`auto` -> the first GPU where there is one, else the CPU; an absent GPU is a `UserError`."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda:0" if count else "cpu"
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        if index >= count:
            raise UserError(f"--device {name}: this machine has {count} usable CUDA devices; use --device cpu or auto")
        return f"cuda:{index}"
    return name


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run_verb,
    "plan": plan_verb,
    "list": list_verb,
    "rank": rank_verb,
    "verify": verify_verb,
    "data": data_verb,
    "pretrain": pretrain_verb,
}
