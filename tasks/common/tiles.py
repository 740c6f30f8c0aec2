"""Cutting large images: training sees tiles side by side, inference overlapping ones whose logits are averaged."""

from typing import NamedTuple


class Tile(NamedTuple):
    """A part of the image `name`: its upper left corner and its size, in pixels. A whole image has no corner (-1, -1)."""

    name: str
    top: int = -1
    left: int = -1
    height: int = 0
    width: int = 0

    @property
    def key(self) -> str:
        """A name for what is stored of this tile; that of a whole image is its own."""
        return self.name if self.top < 0 else f"{self.name}@{self.top},{self.left},{self.height}x{self.width}"

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the tile in its image."""
        if self.top < 0:
            return slice(None), slice(None)
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def cut(name: str, height: int, width: int, side: int, stride: int) -> list[Tile]:
    """The tiles of one image, row by row; the whole image if no side is above `side`, or if `side` is 0.

    Tiles start every `stride` pixels; the last one of a row or column is moved inwards, so that all are equally large.
    """
    if not side or max(height, width) <= side:
        return [Tile(name)]
    tall, wide = min(height, side), min(width, side)
    return [
        Tile(name, top, left, tall, wide)
        for top in starts(height, tall, stride)
        for left in starts(width, wide, stride)
    ]


def starts(length: int, side: int, stride: int) -> list[int]:
    """Where tiles start along one axis: 0, stride, ..., and the last place at which a tile fits.

    1000 pixels, tiles of 512 every 384: 0, 384, 488.
    """
    last = length - side
    return [*range(0, last, stride), last]
