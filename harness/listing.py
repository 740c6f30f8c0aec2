"""`list`: what the harness knows, told from cards alone."""

import argparse

import models
from harness import model_table
from harness.plan import compile_for, without_statistics
from models.common.errors import UserError, choose
from tasks.data import catalogue
from tasks.protocols import PROTOCOLS
from tasks.suites import SUITES, tasks_for


def list_verb(options: argparse.Namespace) -> int:
    """Print models, suites, data sets or protocols."""
    for flag, wanted in (("transform", "models"), ("markdown", "models"), ("diff", "protocols")):
        if getattr(options, flag) and options.what != wanted:
            raise UserError(f"--{flag} belongs to `list {wanted}`")
    match options.what:
        case "models" if options.markdown:
            lines = [model_table.markdown().rstrip()]
        case "models" if options.transform:
            lines = transforms(options.transform, options.protocol)
        case "models":
            lines = model_lines()
        case "suites":
            lines = suite_lines()
        case "datasets":
            lines = dataset_lines()
        case "protocols" if options.diff:
            lines = differences(*options.diff)
        case _:
            lines = [f"{protocol.name:14} {protocol.title}" for protocol in PROTOCOLS.values()]
    print("\n".join(lines))
    return 0


def model_lines() -> list[str]:
    """One line per model and variant: size, input modes, licence, title."""
    lines = []
    for name in models.names():
        for variant in models.card(name).variants:
            card = models.card(f"{name}:{variant}")
            modes = ", ".join(f"{mode.name} ({len(mode.bands) or 'any'} bands)" for mode in card.inputs)
            size = f"{card.parameters_millions:.1f} M" if card.parameters_millions else "-"
            lines.append(f"{card.label:20} {size:>8}  {modes:30} {card.title}; {card.licence}")
    return lines


def suite_lines() -> list[str]:
    """Every suite with its data sets, and every task with the metric that stands for it; the ranked task stands last."""
    lines = []
    for suite in SUITES.values():
        lines.append(f"{suite.name}: {suite.title} (protocol {suite.protocol})")
        protocol = PROTOCOLS[suite.protocol]
        for dataset, tasks in suite.datasets:
            card = catalogue.card(dataset)
            lines.append(f"    {dataset:24} {', '.join(f'{task} ({protocol.primary(task, card)})' for task in tasks)}")
    return lines


def dataset_lines() -> list[str]:
    """One line per data set: kind of label, classes, bands, size, splits, title."""
    lines = []
    for name in catalogue.names():
        card = catalogue.card(name)
        splits = "/".join(map(str, card.splits))
        shape = f"{len(card.bands):2} bands {card.size:3} px"
        lines.append(f"{name:24} {card.label:10} {card.num_classes:3} classes {shape} {splits:>15}  {card.title}")
    return lines


def differences(first: str, second: str) -> list[str]:
    """The switches in which two protocols differ, with both values."""
    left, right = (PROTOCOLS[choose("protocol", name, PROTOCOLS)].flat() for name in (first, second))
    names = [name for name in left if left[name] != right.get(name)]
    rows = [(name, str(left[name]), str(right.get(name))) for name in names]
    wide = max((len(value) for _, value, _ in rows), default=0)
    wide = min(max(wide, len(first)), 48)
    return [
        f"{'switch':38} {first:{wide}} {second}",
        *(f"{name:38} {value:{wide}} {other}" for name, value, other in rows),
    ]


def transforms(dataset: str, protocol: str) -> list[str]:
    """The compiled transform of every model and variant for one data set."""
    data = catalogue.card(dataset)
    preset = PROTOCOLS[choose("protocol", protocol, PROTOCOLS)]
    task = tasks_for(data.label)[-1]
    lines = []
    for name in models.names():
        for variant in models.card(name).variants:
            card = models.card(f"{name}:{variant}")
            lines.append(f"{card.label} on {data.name} ({preset.name}):")
            try:
                described = compile_for(card, without_statistics(data.bands), preset, task, data.name).describe()
            except UserError as error:
                described = [f"not possible: {error}"]
            lines += [f"    {line}" for line in described]
    return lines
