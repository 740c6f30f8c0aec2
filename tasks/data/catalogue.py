"""Every data set by name: its card without opening it, where it lies below the data root, and how to open it."""

from importlib import import_module
from pathlib import Path

from models.common.errors import choose
from tasks.data import folder, levir_cd, oscd, pastis, sen1floods11, spacenet1
from tasks.data.dataset import Dataset, DatasetCard
from tasks.data.geobench_cards import CARDS as GEOBENCH_CARDS
from tasks.data.twin import DEMO_CARDS
from tasks.data.xstars_cards import XSTARS_CARDS

CARDS: dict[str, DatasetCard] = {
    **GEOBENCH_CARDS,
    **spacenet1.CARDS,
    **sen1floods11.CARDS,
    **pastis.CARDS,
    **levir_cd.CARDS,
    **oscd.CARDS,
    **XSTARS_CARDS,
    **DEMO_CARDS,
}
ALIASES = {alias: card.name for card in CARDS.values() for alias in card.aliases}


def names() -> list[str]:
    """Every data set the harness knows by name, in alphabetical order."""
    return sorted(CARDS)


def card(name: str) -> DatasetCard:
    """The card of a data set by name, alias, or path to a TOML file that describes a folder of images."""
    if name.endswith(".toml"):
        return folder.card(Path(name))
    return CARDS[ALIASES.get(name) or choose("data set", name, [*CARDS, *ALIASES])]


def find(card: DatasetCard, data_root: Path) -> Path | None:
    """Where the data set lies, or None if it is not on this machine."""
    if card.family == "folder":
        return Path(card.location)
    return import_module(f"tasks.data.{card.family}").present(card, data_root)


def open_dataset(card: DatasetCard, path: Path, band_names: str) -> Dataset:
    """Open what `find` found. `band_names` (`corrected` | `as-released`) matters to GEO-Bench alone."""
    reader = import_module(f"tasks.data.{card.family}")
    return reader.open_dataset(card, path) if card.family == "folder" else reader.open_dataset(card, path, band_names)
