"""What the classification sets of X-STARS share: RGB images of eight bits, one class each, listed by the set's reader.

Names are the images' paths below the root. What a list names and the disk lacks is left out with a warning, so that a
part of a set can be tried; an empty split is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from models.common.errors import UserError, choose
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.folder import opened, pixels
from tasks.data.reader import Reader, digest, incomplete

if TYPE_CHECKING:
    import numpy as np


class Scene(NamedTuple):
    """An image that a release lists: its path below the root, its split and its class."""

    name: str
    split: str
    label: str


@dataclass(kw_only=True)
class SceneDataset(Reader):
    """An opened set (see `tasks.data.dataset.Dataset`); `numbers` holds the class of every sample.

    With `exact` an image of another size than the card's is refused; else images are read as they are.
    """

    numbers: dict[str, int]
    exact: bool = False

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One image (C, H, W), uint8, in the order of `bands`. Raises `UserError` on a damaged file or a wrong size."""
        path, side = self.root / name, self.card.size
        keys = {band.name: int(band.key) for band in self.card.bands}
        wanted = [keys[choose(f"band of {self.card.name}", band, keys)] for band in bands]
        with opened(path) as source:
            count, dtype, shape = source.count, source.dtypes[0], source.shape
        if count < len(keys) or dtype != "uint8":
            raise UserError(f"{path} has {count} bands of {dtype}; {self.card.name} has red, green and blue, uint8")
        if self.exact and shape != (side, side):
            raise UserError(f"{path} is {shape[0]}x{shape[1]}; images of {self.card.name} are {side} px square")
        return pixels(path, wanted)

    def label(self, name: str) -> int:
        """The number of the class."""
        return self.numbers[name]


def assemble(
    card: DatasetCard, root: Path, scenes: Iterable[Scene], warnings: Sequence[str] = (), exact: bool = False
) -> SceneDataset:
    """The data set of these scenes; no image is opened. Raises `UserError`: unknown class or split, an empty split."""
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    numbers = {}
    for scene in scenes:
        splits[choose(f"split of {card.name}", scene.split, SPLITS)].append(scene.name)
        numbers[scene.name] = card.classes.index(choose(f"class of {card.name}", scene.label, card.classes))
    ordered = {split: tuple(names) for split, names in splits.items()}
    if empty := [split for split in SPLITS if not ordered[split]]:
        raise UserError(f"{root}: no image of the {' and '.join(empty)} split of {card.name} is there; fetch the set")
    said = [*warnings, *(incomplete(card, ordered) if any(card.splits) else [])]
    version = digest(card, ordered, root, (root / name for name in numbers))
    return SceneDataset(
        card=card, root=root, splits=ordered, version=version, warnings=said, numbers=numbers, exact=exact
    )


def listing(path: Path, card: DatasetCard) -> str:
    """The text of a list that the release ships. Raises `UserError` if it is missing or damaged."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{card.name}: the list {path} is missing; it is part of: {card.origin}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{card.name}: the list {path} cannot be read ({type(error).__name__}); fetch it again"
        ) from None
