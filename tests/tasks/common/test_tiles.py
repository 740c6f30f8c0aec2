"""Where large images are cut."""

import numpy as np
import pytest

from tasks.common.tiles import Tile, cut, starts


@pytest.mark.parametrize(
    ("length", "side", "stride", "expected"),
    [
        (1000, 512, 384, [0, 384, 488]),
        (1024, 256, 256, [0, 256, 512, 768]),
        (512, 512, 384, [0]),
        (10, 4, 3, [0, 3, 6]),
    ],
)
def test_tiles_start_at_every_stride_and_the_last_one_ends_at_the_edge(length, side, stride, expected):
    assert starts(length, side, stride) == expected


def test_an_image_no_larger_than_a_tile_stays_whole_and_keeps_its_name():
    assert cut("a", 300, 512, 512, 384) == [Tile("a")]
    assert cut("a", 3000, 5000, 0, 1) == [Tile("a")]
    assert Tile("a").key == "a"


@pytest.mark.parametrize("stride", [5, 7, 8])
def test_tiles_are_equally_large_and_cover_every_pixel(stride):
    seen = np.zeros((19, 8), dtype=int)
    tiles = cut("a", 19, 8, 8, stride)
    for tile in tiles:
        assert seen[tile.window].shape == (8, 8)
        seen[tile.window] += 1
    assert seen.min() >= 1
    assert len({tile.key for tile in tiles}) == len(tiles)


def test_an_image_that_is_narrow_one_way_is_cut_the_other_way_only():
    assert [(tile.top, tile.left, tile.height, tile.width) for tile in cut("a", 6, 20, 8, 8)] == [
        (0, 0, 6, 8),
        (0, 8, 6, 8),
        (0, 12, 6, 8),
    ]
