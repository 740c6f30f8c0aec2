"""`models/README.md`, generated from the cards and the slim parity kits: `python -m harness list models --markdown`."""

import json
import re
from pathlib import Path

import models
from models.common.card import Card

ROOT = Path(__file__).resolve().parents[1]
HEADING = """# Models

Generated from the cards by `python -m harness list models --markdown > models/README.md`; a test fails where it differs.
*Parity*: the largest error allowed, relative to the largest value of an array, on the kits in `tests/parity`, and the commit
of the authors' code that computed them. Weights: `hub` and `https` are fetched, `manual` is a file to put in place by hand.
"""


def markdown() -> str:
    """The whole page: a table of all models and variants, then one paragraph per model."""
    cards = [models.card(f"{name}:{variant}") for name in models.names() for variant in models.card(name).variants]
    proofs = parity()
    lines = [
        HEADING,
        "| model | published as | inputs | parameters (M) | GMACs | parity | weights |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(card, proofs.get(card.label, [])) for card in cards),
        "",
    ]
    for card in cards:
        lines += _paragraph(card)
    return "\n".join(lines)


def parity() -> dict[str, list[str]]:
    """What the slim kits prove, by model label: `pass <= 2e-05 (deo, 55c7ae1)`; the tests run every one of them."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests" / "parity").glob("*/manifest.json")):
        manifest = json.loads(path.read_text())
        tolerance = manifest["golden"]["tolerance"]["rtol"]
        commit = re.search(r"@ ?([0-9a-f]{7})", manifest["source"])
        words = f"pass <= {tolerance:g} ({path.parent.name}{f', {commit.group(1)}' if commit else ''})"
        found.setdefault(models.card(manifest["adapter"]).label, []).append(words)
    return found


def _row(card: Card, proofs: list[str]) -> str:
    modes = ", ".join(f"{mode.name}: {len(mode.bands) or 'any'} bands, {mode.unit}" for mode in card.inputs)
    size = f"{card.parameters_millions:g}" if card.parameters_millions else "none"
    cells = (
        f"`{card.label}`",
        ", ".join(card.published_as) or "-",
        modes,
        size,
        card.gmacs or "-",
        "; ".join(proofs) or "-",
        card.checkpoint.fetch,
    )
    return f"| {' | '.join(cells)} |"


def _paragraph(card: Card) -> list[str]:
    lines = [f"## `{card.label}`", "", f"{card.title}. {card.paper}. Licence: {card.licence}."]
    if card.pretraining_data:
        lines.append(f"Pretrained on: {card.pretraining_data}.")
    if card.checkpoint.fetch != "none":
        lines.append(f"Weights: `{card.checkpoint.file}`, {card.checkpoint.where or card.checkpoint.url}.")
    if card.necks:
        lines.append(f"Necks, trained with the head: {', '.join(f'`{kind}`' for kind in card.necks)}.")
    for mode in card.inputs:
        source = "" if mode.normalisation_source == "authors" else f" ({mode.normalisation_source})"
        steps = "; ".join(step.describe() for step in mode.normalisation) or "none"
        size = f"{mode.size} px" if mode.size else "any size"
        bands = ", ".join(mode.bands) or "any bands"
        lines.append(f"* `{mode.name}` ({mode.sensor}): {bands}; {mode.unit}; {size}, multiples of {mode.multiple}.")
        lines.append(f"  Normalisation{source}: {steps}.")
    return [*lines, ""]
