"""Who is measured. Every .py file here is an adapter: its stem is the model's name, `name:variant` picks a variant.

An adapter is `CARD` (a `Card`) and `build(card, shapes) -> Backbone`, where `shapes` holds the shapes of the checkpoint
about to be loaded (empty for random weights). A path to a .py file of one's own is accepted wherever a name is.
"""

from dataclasses import replace
from importlib import import_module, util
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING

from models.common.card import Card
from models.common.errors import UserError, choose

if TYPE_CHECKING:
    from models.common.backbone import Backbone


def names() -> list[str]:
    """Every adapter in this folder, in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__) if not module.ispkg)


def adapter(name: str) -> ModuleType:
    """Import the adapter `name`, or the file it is a path to; its networks are not imported yet."""
    if not name.endswith(".py"):
        return import_module(f"models.{choose('model', name, names())}")
    path = Path(name)
    if not path.is_file():
        raise UserError(f"no adapter file {name!r}")
    spec = util.spec_from_file_location(f"adapter_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [word for word in ("CARD", "build") if not hasattr(module, word)]
    if missing:
        raise UserError(
            f"{name} is no adapter: it has no {' and no '.join(missing)} (see README, 'Add a model in one file')"
        )
    return module


def split_label(label: str) -> tuple[str, str]:
    """`dinov3:sat` -> (`dinov3`, `sat`); `dinov3` -> (`dinov3`, ``)."""
    name, _, variant = label.partition(":")
    return name, variant


def card(label: str) -> Card:
    """The card of `name` or `name:variant`; unknown names raise a `UserError` with the nearest known one."""
    name, variant = split_label(label)
    chosen = adapter(name).CARD.choose_variant(variant)
    return replace(chosen, source=name) if name.endswith(".py") else chosen


def build(label: str, weights: str = "official", cache: Path | None = None, seed: int = 0) -> "Backbone":
    """Build `name` or `name:variant` with `official` or `random` weights or those of a checkpoint file, frozen.

    Official weights are fetched into `cache` if they are not there. Random ones are the network's own initialisation
    from `seed`; the caller's random numbers are not touched. Raises `UserError` for unknown names, for weights that are
    absent and cannot be fetched, and for a file that is damaged or of another model.
    """
    import torch

    from models.common.backbone import state_shapes
    from models.common.weights import fetch, load, locate, parameters_on_meta, read, state_dict

    name, variant = split_label(label)
    module = adapter(name)
    card = module.CARD.choose_variant(variant)
    located = locate(card, weights, cache, seed)
    if located.kind == "official" and located.path is None:
        fetch(card, cache)
        located = locate(card, weights, cache, seed)
    with torch.random.fork_rng(devices=[]):
        if located.path is None:
            torch.default_generator.manual_seed(seed)
            backbone = module.build(card, {})
        else:
            content = read(located.path, card.checkpoint.folders)
            try:
                state = state_dict(content, card.checkpoint)
                with parameters_on_meta():
                    backbone = module.build(card, state_shapes(state))
                load(backbone, state)
            except UserError as error:
                raise UserError(f"{located.path}: {error}") from error
    backbone.weights_digest = located.digest
    return backbone.freeze()
