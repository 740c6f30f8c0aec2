"""Large pairs of dates cut into square tiles on the fly: no overlap, from the upper left corner, the last ones padded."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from models.common.errors import UserError, choose
from tasks.data.reader import Reader

if TYPE_CHECKING:
    import numpy as np


class Tile(NamedTuple):
    """A tile of the large image `image`, by the row and column of its upper left pixel."""

    image: str
    row: int
    column: int


def tiles(image: str, height: int, width: int, size: int) -> "Iterator[tuple[str, Tile]]":
    """Name and place of every tile, row by row: `<image>_<row>_<column>`, or the image's own name if it is one tile.

    Every pixel is in exactly one tile; tiles at the right and lower border may reach past it.
    """
    for row in range(0, height, size):
        for column in range(0, width, size):
            whole = height <= size and width <= size
            yield image if whole else f"{image}_{row:04d}_{column:04d}", Tile(image, row, column)


def cut(image: "np.ndarray", tile: Tile, size: int, fill: int) -> "np.ndarray":
    """The tile (..., size, size) of a large image (..., H, W); what lies past the border is `fill`."""
    import numpy as np

    part = image[..., tile.row : tile.row + size, tile.column : tile.column + size]
    past = [(0, 0)] * (image.ndim - 2) + [(0, size - part.shape[-2]), (0, size - part.shape[-1])]
    return np.pad(part, past, constant_values=fill)


@dataclass(kw_only=True)
class TiledPairs(Reader):
    """Pairs cut into tiles of `card.size` pixels. The last large pair is kept, so that reading in order opens it once."""

    tiles: dict[str, Tile]
    _last: "tuple[tuple[str, tuple[str, ...]], np.ndarray] | None" = field(default=None, init=False, repr=False)

    @abstractmethod
    def pair(self, image: str, bands: Sequence[str]) -> "np.ndarray":
        """Both dates of a large image, (2, C, H, W), in the stored dtype."""

    @abstractmethod
    def change(self, image: str) -> "np.ndarray":
        """The label of a large image, (H, W) int64 of 0, 1 and `card.ignore`."""

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """Both dates of a tile, (2, C, H, W), zero past the border of the image. Raises `UserError` on a damaged file."""
        import numpy as np

        known = [band.name for band in self.card.bands]
        for band in bands:
            choose(f"band of {self.card.name}", band, known)
        tile = self.tiles[name]
        wanted = (tile.image, tuple(bands))
        last = self._last  # one assignment below: threads may share the reader
        if last is None or last[0] != wanted:
            last = (wanted, self.pair(tile.image, bands))
            self._last = last
        return np.ascontiguousarray(cut(last[1], tile, self.card.size, 0))

    def label(self, name: str) -> "np.ndarray":
        """The label of a tile, (H, W) int64: 0 no change, 1 change, `card.ignore` past the border of the image."""
        tile = self.tiles[name]
        return cut(self.change(tile.image), tile, self.card.size, self.card.ignore)


def one_shape(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """The common (rows, columns) of both dates and the label. Raises `UserError` if they differ."""
    sizes = {shape[-2:] for shape in shapes}
    if len(sizes) != 1:
        listed = ", ".join(f"{shape[-2]}x{shape[-1]}" for shape in shapes)
        raise UserError(f"{name}: before, after and label are of different sizes ({listed})")
    rows, columns = sizes.pop()
    return rows, columns
