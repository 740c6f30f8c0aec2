"""From words on the command line to cards, cells, protocol and weights. Standard library and cards only: no torch."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import models
import tasks
from models.common.card import Card
from models.common.errors import UserError, choose
from models.common.weights import Located, locate
from tasks.common.low_data import fraction_name
from tasks.data import catalogue
from tasks.data.dataset import DatasetCard
from tasks.protocols import PROTOCOLS, Protocol
from tasks.suites import SUITES, Cell, Suite, cells, tasks_for

CUSTOM = "custom"


def cards(labels: Sequence[str] | None) -> list[Card]:
    """The cards asked for, each once; `all` is every model's default variant."""
    if not labels:
        raise UserError(f"--model is missing; known: {', '.join(models.names())}, or `all`")
    expanded = [name for label in labels for name in (models.names() if label == "all" else [label])]
    found = {card.label: card for card in map(models.card, expanded)}
    return list(found.values())


def suite_cells(options: argparse.Namespace) -> tuple[str, list[tuple[Cell, DatasetCard]]]:
    """The suite's name (`custom` for bare data sets) and its cells with their data-set cards."""
    wanted = {card.name: card for card in map(catalogue.card, options.dataset or [])}
    if len(wanted) < len(options.dataset or []):
        raise UserError(f"--dataset names {len(options.dataset)} data sets, but only {len(wanted)} different names")
    if options.suite:
        name = choose("suite", options.suite, SUITES)
        chosen = [(cell, catalogue.card(cell.dataset)) for cell in SUITES[name].cells]
        if wanted:
            chosen = [pair for pair in chosen if pair[0].dataset in wanted]
            if not chosen:
                raise UserError(f"suite {name!r} holds none of {', '.join(wanted)}; leave --suite out to run them")
    elif wanted:
        name = CUSTOM
        chosen = [(cell, card) for card in wanted.values() for cell in cells(card.name, tasks_for(card.label))]
    else:
        raise UserError(f"give --suite or --dataset; suites: {', '.join(SUITES)}")
    if options.task:
        for task in options.task:
            choose("task", task, tasks.TASKS)
        chosen = [pair for pair in chosen if pair[0].task in options.task]
        if not chosen:
            raise UserError(f"none of the data sets has task {', '.join(options.task)}")
    return name, chosen


def suite(options: argparse.Namespace) -> Suite | None:
    """The suite asked for, if one is."""
    return SUITES[choose("suite", options.suite, SUITES)] if options.suite else None


def protocols(options: argparse.Namespace) -> list[Protocol]:
    """The preset asked for (default: the suite's, `clean` without a suite) with the switches that --set and --seeds change.

    A suite that sweeps a switch gives one protocol per value, unless --set names the switch.
    """
    chosen = suite(options)
    name = options.protocol or (chosen.protocol if chosen else "clean")
    preset = PROTOCOLS[choose("protocol", name, PROTOCOLS)]
    assignments = [part for text in options.switches for part in split_assignments(text)]
    if options.seeds:
        assignments += [f"{switch}={','.join(options.seeds)}" for switch in ("seeds", "dense_seeds")]
    own = {assignment.partition("=")[0].strip() for assignment in assignments}
    sweep = [value for value in (chosen.sweep if chosen else ()) if value.partition("=")[0] not in own]
    return [preset.with_switches([*assignments, value]) for value in sweep] or [preset.with_switches(assignments)]


def fractions(options: argparse.Namespace) -> list[str]:
    """The training fractions asked for, else the suite's; named as draws of ours where --draws asks for some."""
    chosen = suite(options)
    if options.draws < 0:
        raise UserError(f"--draws {options.draws} is below 0")
    texts = options.train_fraction or (chosen.fractions if chosen else ("1.00",))
    return [fraction_name(text, drawn=options.draws > 0) for text in texts]


def split_assignments(text: str) -> list[str]:
    """`a=1,b=2` -> [a=1, b=2]; `knn.k=5,10` stays one assignment, because `10` assigns nothing."""
    parts: list[str] = []
    for part in text.split(","):
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += f",{part}"
    return parts


def weights(choice: str, cache: Path, fetch: bool) -> Callable[[Card], Located | str]:
    """How to find a model's weights; a string is the reason why there are none. `fetch` downloads what is published."""

    def find(card: Card) -> Located | str:
        from models.common.weights import fetch as download

        try:
            located = locate(card, choice, cache)
            if located.kind == "official" and located.path is None:
                if not fetch:
                    return located
                download(card, cache)
                located = locate(card, choice, cache)
            return located
        except UserError as error:
            return str(error)

    return find
