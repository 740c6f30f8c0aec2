"""What each verb does. Torch and everything heavy is imported inside the verbs that compute."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import models
from harness import select
from harness.cli import cache_folder, data_root, words
from harness.listing import list_verb
from harness.plan import Job, Skip, compile_for, plan, skip_lines, without_statistics
from models.common.card import Card
from models.common.errors import UserError, choose
from models.common.weights import Located
from tasks.common.low_data import fraction_name
from tasks.data import catalogue, sources
from tasks.protocols import PROTOCOLS, Protocol
from tasks.suites import SUITES

PRECISIONS = ("fp32", "bf16", "fp16")


def _planned(
    options: argparse.Namespace, fetch: bool
) -> tuple[str, Protocol, list[Any], list[Job], list[Skip], dict[str, Located]]:
    """What `run` and `plan` share: suite name, protocol, cells, jobs, skips and the weights found per model."""
    cards = select.cards(options.model)
    suite, cells = select.suite_cells(options)
    protocol = select.protocol(options)
    choice = options.weights or protocol.weights
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

    jobs, skips = plan(
        cards,
        cells,
        protocol,
        fractions=[fraction_name(text) for text in options.train_fraction],
        find=lambda card: root / card.location if card.name in synthetic else catalogue.find(card, root),
        remedy=sources.remedy,
        weights=weights,
    )
    return suite, protocol, cells, jobs, skips, found


def run_verb(options: argparse.Namespace) -> int:
    """Measure, record, write the CSV and the rank table, print the final table."""
    choose("precision", options.precision, PRECISIONS)
    for name, value in (
        ("--limit", options.limit),
        ("--batch-size", options.batch_size),
        ("--workers", options.workers),
    ):
        if value is not None and value < 1:
            raise UserError(f"{name} {value} is below 1")
    check_device_name(options.device)
    suite, protocol, cells, jobs, skips, found = _planned(options, fetch=True)
    lines = skip_lines(skips)
    if not jobs:
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

    settings = Options(
        protocol=protocol,
        preset=PROTOCOLS[protocol.name],
        weights=options.weights or protocol.weights,
        label=options.label,
        cache=cache_folder(),
        store=options.store or options.runs / "store",
        compute=Compute(resolve_device(options.device), options.precision, options.batch_size, options.workers),
        limit=options.limit,
        force=options.force,
        strict=options.strict,
        verbose=options.verbose,
    )
    progress = Progress(quiet=options.quiet)
    for line in lines:
        progress.line(line)
    journal = Journal(options.runs)
    outcome = run.run(jobs, found, settings, journal, progress)
    written = table.write(journal, suite, cells, options.out)
    if written:
        table.show(written)
    for warning in dict.fromkeys(outcome.warnings):
        print(f"warning: {warning}")
    for what, reason, mendable in outcome.failures:
        text = reason if reason.startswith(f"{what}: ") else f"{what}: {reason}"
        print(f"harness: {' '.join(text.split()) if mendable else text}", file=sys.stderr)
    print(
        f"{outcome.computed} runs computed, {outcome.already_done} already in the journal, {len(lines)} skips, "
        f"{len(outcome.failures)} failures; {outcome.extracted} images encoded"
    )
    code = 0 if not outcome.failures else 2 if all(mendable for _, _, mendable in outcome.failures) else 1
    if options.json:
        print(json.dumps(_summary(suite, protocol, outcome, lines, written, code)))
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
        "csv": str(written.csv) if written else None,
        "ranks": str(written.ranks) if written else None,
        "exit": code,
    }


def plan_verb(options: argparse.Namespace) -> int:
    """Print what a run would do and what it would skip."""
    suite, protocol, cells, jobs, skips, found = _planned(options, fetch=False)
    datasets = dict.fromkeys(cell.dataset for cell, _ in cells)
    print(f"suite {suite}, protocol {protocol.name}: {len(datasets)} data sets, {len(cells)} cells")
    runs = 0
    for job in jobs:
        mode = compile_for(job.card, without_statistics(job.dataset.bands), protocol).mode.name
        seeds = "" if job.seeds == (None,) else f", seeds {','.join(map(str, job.seeds))}"
        images = sum(job.dataset.splits) or "unknown"
        where = f"{job.card.label:14} {job.dataset.name:22} {job.task:14} {mode:4}"
        print(f"  {where} train {job.fraction}{seeds}, {images} images")
        runs += len(job.seeds)
    for label, located in found.items():
        if located.kind == "official" and located.path is None:
            print(f"  {label}: its official weights are not on this machine yet; `run` fetches them or says what to do")
    for line in skip_lines(skips):
        print(f"  {line}")
    print(f"{runs} runs in {len(jobs)} jobs; {len(skips)} cells skipped")
    if options.json:
        print(json.dumps({"suite": suite, "runs": runs, "jobs": len(jobs), "skipped": skip_lines(skips)}))
    return 0


def rank_verb(options: argparse.Namespace) -> int:
    """Rebuild the CSV and the rank table from the journal alone."""
    from harness import table
    from leaderboards.results import Journal

    suite = SUITES[choose("suite", options.suite, SUITES)]
    if not options.runs.is_dir():
        raise UserError(f"no journal in {options.runs}; `python -m harness run` writes one")
    cells = [(cell, catalogue.card(cell.dataset)) for cell in suite.cells]
    written = table.write(Journal(options.runs), suite.name, cells, options.out)
    if written is None:
        raise UserError(f"the journal in {options.runs} holds no finished run of suite {suite.name!r}")
    table.show(written)
    return 0


def verify_verb(options: argparse.Namespace) -> int:
    """Parity with the authors' code; exit code 1 above tolerance."""
    from harness.verify import verify

    labels = [label for word in options.model for label in words(word)]
    everything = labels == ["all"]
    for label in [] if everything else labels:
        models.card(label)
    return verify(None if everything else labels, options.kits, print)


def data_verb(options: argparse.Namespace) -> int:
    """Fetch data sets, or write the synthetic twin."""
    from harness.progress import Progress

    root = options.data_root or data_root()
    progress = Progress()
    if options.what == "twin":
        from tasks.data import twin

        twin.write(root / "twin", lambda done, total: progress("twin", done, total))
        print(f"the synthetic twin is in {root / 'twin'}; use it with --suite demo")
        return 0
    if not options.name:
        raise UserError(f"name the data sets to fetch; known: {', '.join(catalogue.names())}")
    for card in [catalogue.card(name) for name in options.name]:
        print(
            f"{card.name} is in {sources.fetch(card.name, root, lambda done, total, name=card.name: progress(name, done, total))}"
        )
    return 0


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
}
