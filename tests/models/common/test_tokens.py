"""Position tables against bicubic interpolation written out, and tokens as maps and vectors by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import models
from models.common.errors import UserError
from models.common.tokens import (
    VitShape,
    expect_shape,
    maps_and_vectors,
    read_shape,
    resize_positions,
    sincos_positions,
)


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, as in torch and OpenCV."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def matrix(stored: int, wanted: int) -> np.ndarray:
    """Weights (wanted, stored) in float64: sampled at (i + 0.5) / factor - 0.5, factor (wanted + 0.1) / stored."""
    weights = np.zeros((wanted, stored))
    for index in range(wanted):
        centre = (index + 0.5) * stored / (wanted + 0.1) - 0.5
        for neighbour in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[index, min(max(neighbour, 0), stored - 1)] += cubic(centre - neighbour)
    return weights


@pytest.mark.parametrize(
    ("stored", "rows", "columns"), [(37, 16, 16), (37, 8, 12), (28, 32, 32), (14, 15, 3), (5, 1, 1)]
)
def test_positions_are_those_of_bicubic_sampling_with_the_offset_of_a_tenth(stored: int, rows: int, columns: int):
    patch = 8
    table = torch.randn(1, 1 + stored * stored, 3, generator=torch.Generator().manual_seed(0))
    resized = resize_positions(table, (rows * patch, columns * patch), patch)
    assert torch.equal(resized[:, :1], table[:, :1])
    grid = table[0, 1:].double().numpy().reshape(stored, stored, 3)
    expected = np.einsum("rs,stc,kt->rkc", matrix(stored, rows), grid, matrix(stored, columns))
    np.testing.assert_allclose(resized[0, 1:].numpy(), expected.reshape(-1, 3), rtol=0, atol=2e-5)


def test_the_table_is_kept_for_the_stored_grid_and_a_square_image_alone():
    table = torch.randn(1, 1 + 16, 2)
    assert resize_positions(table, (32, 32), 8) is table
    assert resize_positions(table, (37, 37), 8) is table  # the remainder is dropped by the patch embedding
    oblong = resize_positions(table, (32, 37), 8)  # four columns too, yet DINO resizes where the image is not square
    assert oblong.shape == table.shape
    assert not torch.allclose(oblong, table)
    assert not torch.allclose(resize_positions(table, (64, 16), 8), table)  # 16 patches, but 8 x 2


def test_the_dtype_of_the_table_is_kept():
    assert resize_positions(torch.randn(1, 17, 2, dtype=torch.bfloat16), (64, 40), 8).dtype == torch.bfloat16


def test_tokens_become_maps_in_row_major_order_without_the_prefix():
    tokens = torch.arange(8.0).reshape(1, 8, 1)  # class token 0, one register 1, patches 2..7 in two rows of three
    outputs = [tokens, 10 * tokens, 100 * tokens, 1000 * tokens]
    stages, vectors = maps_and_vectors(outputs, nn.Identity(), prefix=2, grid=(2, 3), norm_stages=False)
    assert [stage[0, 0].tolist() for stage in stages[:2]] == [[[2, 3, 4], [5, 6, 7]], [[20, 30, 40], [50, 60, 70]]]
    assert {kind: vector.item() for kind, vector in vectors.items()} == {"default": 0, "cls": 0, "raw": 0, "mean": 4500}


def test_the_norm_is_applied_to_vectors_always_and_to_stages_where_asked():
    class AddOne(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens + 1

    outputs = [torch.full((2, 5, 3), float(value)) for value in (1, 2, 3, 4)]
    raw, vectors = maps_and_vectors(outputs, AddOne(), prefix=1, grid=(2, 2), norm_stages=False)
    normed, _ = maps_and_vectors(outputs, AddOne(), prefix=1, grid=(2, 2), norm_stages=True)
    assert [stage.unique().item() for stage in raw] == [1, 2, 3, 4]
    assert [stage.unique().item() for stage in normed] == [2, 3, 4, 5]
    assert {kind: vector.unique().item() for kind, vector in vectors.items()} == {
        "default": 5,
        "cls": 5,
        "raw": 4,
        "mean": 5,
    }


def test_patch_size_and_grid_are_read_off_the_shapes():
    shapes = {"patch_embed.proj.weight": (768, 3, 14, 14), "cls_token": (1, 1, 768), "pos_embed": (1, 1370, 768)}
    shapes |= {f"blocks.{block}.norm1.weight": (768,) for block in range(12)}
    assert read_shape(models.card("dinov2"), shapes) == VitShape(patch=14, grid=37)
    with pytest.raises(UserError, match="it has no patch_embed_ms"):
        read_shape(models.card("deo:vit"), shapes, stem="patch_embed_ms")


def test_sine_cosine_positions_put_the_column_before_the_row_and_sines_before_cosines():
    rows, columns, width, scales = 3, 5, 16, [1.0, 0.3]
    tables = sincos_positions((rows, columns), width, torch.tensor(scales))
    assert tables.shape == (2, 1 + rows * columns, width)
    assert tables.dtype == torch.float32
    frequencies = 10000.0 ** (-np.arange(4) / 4)
    for table, scale in zip(tables, scales, strict=True):
        assert not table[0].any()
        for row, column in ((0, 0), (2, 3), (1, 4)):
            angles = [scale * column * frequencies, scale * row * frequencies]
            expected = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)])
            np.testing.assert_allclose(table[1 + row * columns + column].numpy(), expected, rtol=0, atol=1e-6)
    plain, ones = sincos_positions((rows, columns), width), sincos_positions((rows, columns), width, torch.ones(1))
    torch.testing.assert_close(plain, ones, rtol=0, atol=1e-6)


def test_a_network_of_one_patch_size_refuses_any_other_and_needs_positions():
    card = models.card("mae")
    shapes: dict[str, tuple[int, ...]] = {f"blocks.{block}.norm1.weight": (1024,) for block in range(24)}
    shapes |= {"cls_token": (1, 1, 1024), "patch_embed.proj.weight": (1024, 3, 16, 16), "pos_embed": (1, 101, 1024)}
    assert expect_shape(card, {}) == VitShape(16, 14)
    assert expect_shape(card, shapes) == VitShape(16, 10)
    with pytest.raises(UserError, match="patch size 8; mae has 16"):
        expect_shape(card, shapes | {"patch_embed.proj.weight": (1024, 3, 8, 8)})
    with pytest.raises(UserError, match=r"no position table; that of mae has 14\^2"):
        expect_shape(card, {key: shape for key, shape in shapes.items() if key != "pos_embed"})
