"""GFM: what is read off a checkpoint, which window fits which image, and tables resized as scipy's spline would."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import RectBivariateSpline
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor

import models
from harness import verify
from models import gfm
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.errors import UserError
from models.common.weights import parameters_on_meta
from models.networks.gfm import TABLE, Gfm, geometric_grid, resize_table

CARD = models.card("gfm")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "gfm"


def build(shapes: dict[str, tuple[int, ...]]) -> Gfm:
    with parameters_on_meta():
        model = gfm.build(CARD, shapes)
    assert isinstance(model, Gfm)
    return model


def shapes(window: int = 6) -> dict[str, tuple[int, ...]]:
    with parameters_on_meta():
        return state_shapes(Gfm(CARD, window).state_dict())


def test_the_official_file_is_read_with_all_that_it_holds_beside_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A SimMIM training file: four parts of a model, buffers, and a configuration whose class need not be installed."""
    generator = torch.Generator().manual_seed(0)
    encoder = {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes().items()}
    buffers = {
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 36, 36),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(36, 36, dtype=torch.int64),
        "mask_token": torch.zeros(1, 1, 128),
    }
    content: dict[str, Tensor] = {f"encoder.{key}": value for key, value in (encoder | buffers).items()}
    content |= {"decoder.0.weight": torch.zeros(3072, 1024, 1, 1), "projector.weight": torch.zeros(1024, 1024)}
    content |= {
        "teacher.norm.weight": torch.zeros(1024),
        "teacher.layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
    }
    module = types.ModuleType("yacs_config_of_elsewhere")
    node = type("CfgNode", (dict,), {"__module__": module.__name__})
    monkeypatch.setattr(module, "CfgNode", node, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"model": content, "epoch": 99, "config": node(model="swin")}, tmp_path / "gfm.pth")
    monkeypatch.delitem(sys.modules, module.__name__)
    model = models.build("gfm", str(tmp_path / "gfm.pth"))
    assert set(model.state_dict()) == set(encoder)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in encoder.items())
    features = model(Batch({"optical": torch.randn(1, 3, 64, 64, generator=generator)}, "rgb"))
    assert features.pooled.shape == (1, 1024)


@pytest.mark.parametrize(("window", "rows"), [(6, 121), (7, 169)])
def test_the_window_is_read_off_the_position_bias_table(window: int, rows: int):
    assert shapes(window)[TABLE] == (rows, 4)
    model = build(shapes(window))
    assert model.trained_window == window
    assert state_shapes(model.state_dict()) == shapes(window)


WINDOWS = {
    (192, 192): [(6, 3), (6, 3), (6, 3), (6, 0)],  # pretraining
    (384, 384): [(6, 3), (6, 3), (6, 3), (6, 3)],
    (256, 256): [(8, 4), (8, 4), (8, 4), (8, 0)],  # as DEO's authors evaluated it
    (224, 224): [(7, 3), (7, 3), (7, 3), (7, 0)],
    (320, 320): [(5, 2), (5, 2), (5, 2), (5, 2)],
    (512, 512): [(8, 4), (8, 4), (8, 4), (8, 4)],
    (96, 96): [(6, 3), (6, 3), (6, 0), (3, 0)],
    (192, 384): [(6, 3), (6, 3), (6, 3), (6, 0)],
}


@pytest.mark.parametrize("size", WINDOWS)
def test_the_window_nearest_to_that_of_the_weights_is_taken_which_divides_every_map(size: tuple[int, int]):
    model = build({})
    assert model.trained_window == 6
    assert list(model.windows(*size)) == WINDOWS[size]


def test_a_given_window_is_used_and_one_that_does_not_fit_is_refused():
    model = build({})
    model.set_window(4)
    assert model.windows(256, 256)[0] == (4, 2)
    for size in ((224, 224), (250, 250)):
        with pytest.raises(UserError, match=f"cannot divide images of {size[0]} x {size[1]} pixels by window 4"):
            model.windows(*size)
    model.set_window(0)
    with pytest.raises(UserError, match="96 x 160 pixels by any window"):
        model.windows(96, 160)


@pytest.mark.parametrize("window", [1, 3, 4, 7, 8, 12, 16])
def test_tables_are_resized_as_by_scipys_spline_on_the_same_grid(window: int):
    table = torch.randn(121, 4, generator=torch.Generator().manual_seed(window))
    grid = geometric_grid(5, window - 1).numpy()
    wanted = np.clip(np.arange(-(window - 1), window), grid[0], grid[-1])
    theirs = [RectBivariateSpline(grid, grid, head.reshape(11, 11), s=0)(wanted, wanted) for head in table.numpy().T]
    ours = resize_table(table, window)
    assert ours.shape == ((2 * window - 1) ** 2, 4)
    np.testing.assert_allclose(ours.numpy(), np.stack(theirs).reshape(4, -1).T, rtol=1e-6, atol=1e-6)


def test_the_grid_is_geometric_and_reaches_the_farthest_offset_where_its_ratio_allows():
    for reach, last in ((6, 6.0), (7, 7.0), (11, 11.0), (3, 5.1), (20, 13.1875)):  # ratios are kept in 1.01..1.5
        grid = geometric_grid(5, reach)
        steps = grid[6:].diff()
        assert torch.equal(grid, -grid.flip(0))
        assert grid[6] == 1
        torch.testing.assert_close(steps[1:] / steps[:-1], steps[:1].expand(3))
        assert abs(float(grid[-1]) - last) < 2e-3


REFUSED = {
    "a ViT": ({"patch_embed.proj.weight": (768, 3, 16, 16)}, "no layers.0.*; it looks like another ViT"),
    "a Swin-T": (
        shapes() | {"patch_embed.proj.weight": (96, 3, 4, 4)},
        r"width 96 and depths \(2, 2, 18, 2\); gfm has 128",
    ),
    "twelve bands": (shapes() | {"patch_embed.proj.weight": (128, 12, 4, 4)}, "stem of 12 bands"),
    "patch 8": (shapes() | {"patch_embed.proj.weight": (128, 3, 8, 8)}, "patches of 8 x 8 pixels"),
    "a table of no window": (shapes() | {TABLE: (122, 4)}, "122 rows"),
    "DEO's Swin": ({"features.0.0.attn.relative_position_bias_table": (169, 4)}, "it looks like a Swin"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    found, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(found)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's interpolation
def test_tables_resized_as_timm_does_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    def by_timm(table: Tensor, window: int) -> Tensor:
        return resize_rel_pos_bias_table(table, (window, window), ((2 * window - 1) ** 2, table.shape[1]), (6, 6))

    assert verify.run_kit(SLIM).passed
    monkeypatch.setattr("models.networks.gfm.resize_table", by_timm)
    outcome = verify.run_kit(SLIM)
    assert outcome.error > 100 * outcome.limit


def test_features_see_gradients_in_the_resized_tables():
    """Fine-tuning at another window trains the tables of the file."""
    torch.manual_seed(0)
    model: Backbone = gfm.build(CARD, {}).eval()
    stages, _ = model.encode(Batch({"optical": torch.randn(1, 3, 64, 64)}, "rgb"))
    stages[0].square().mean().backward()
    gradient = model.get_parameter(TABLE).grad
    assert gradient is not None
    assert bool(gradient.any())
