"""DEO: what is read off a checkpoint, what is refused, and the same features as another implementation of the paper."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import models
from models import deo
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.card import ZScore
from models.common.errors import UserError
from models.common.weights import load, parameters_on_meta, state_dict
from models.networks.deo import DeoSwin, swin_card

SWIN, VIT = models.card("deo"), models.card("deo:vit")


def swin_shapes(window: int = 7) -> dict[str, tuple[int, ...]]:
    with parameters_on_meta():
        return state_shapes(DeoSwin(SWIN, window).state_dict())


def vit_shapes(patch: int = 8, positions: int = 785) -> dict[str, tuple[int, ...]]:
    with parameters_on_meta():
        shapes = state_shapes(deo.build(VIT, {}).state_dict())
    shapes["patch_embed_ms.proj.weight"] = (768, 10, patch, patch)
    shapes["patch_embed_rgb.proj.weight"] = (768, 3, patch, patch)
    return shapes | {"pos_embed": (1, positions, 768)}


def build(label: str, shapes: dict[str, tuple[int, ...]]) -> Backbone:
    with parameters_on_meta():
        return deo.build(models.card(label), shapes)


@pytest.mark.parametrize(("window", "rows"), [(7, 169), (12, 529)])
def test_the_window_is_read_off_the_position_bias_table(window: int, rows: int):
    shapes = swin_shapes(window)
    assert shapes["features.0.0.attn.relative_position_bias_table"] == (rows, 4)
    model = build("deo", shapes)
    assert isinstance(model, DeoSwin)
    assert model.window == window
    assert state_shapes(model.state_dict()) == shapes


def test_a_random_swin_has_window_12():
    model = build("deo", {})
    assert isinstance(model, DeoSwin)
    assert model.window == 12


def test_the_vit_takes_patch_size_and_grid_of_the_file_and_its_card_follows():
    model = build("deo:vit", vit_shapes(patch=16, positions=1 + 14 * 14))
    assert model.card.strides == (16, 16, 16, 16)
    assert [mode.multiple for mode in model.card.inputs] == [16, 16]
    assert model.get_parameter("pos_embed").shape == (1, 197, 768)
    assert model.get_parameter("patch_embed_rgb.proj.weight").shape == (768, 3, 16, 16)


def without(shapes: dict[str, tuple[int, ...]], part: str) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes.items() if part not in key}


TINY = (96, (2, 2, 6, 2), (3, 6, 12, 24), 7)
FREE = (32, (1, 2, 3, 1), (1, 4, 2, 8), 4)


@pytest.mark.parametrize(("width", "depths", "heads", "window"), [TINY, FREE])
def test_a_swin_of_another_shape_is_built_as_its_checkpoint_says_and_its_card_follows(width, depths, heads, window):
    with parameters_on_meta():
        shapes = state_shapes(DeoSwin(swin_card(SWIN, width, depths, heads, 0.0), window).state_dict())
    model = build("deo", shapes)
    assert isinstance(model, DeoSwin)
    assert state_shapes(model.state_dict()) == shapes
    assert model.window == window
    assert model.card.channels == (width, 2 * width, 4 * width, 8 * width)
    assert model.card.width == 8 * width
    attention = [model.get_submodule(f"features.{stage}.0.attn") for stage in (0, 2, 4, 6)]
    assert tuple(module.num_heads for module in attention) == heads
    assert model.card.build["stochastic_depth"] == (0.2 if width == 96 else 0.0)


REFUSED = {
    "the ViT for the Swin": ("deo", vit_shapes, "looks like DEO's ViT"),
    "the Swin for the ViT": ("deo:vit", swin_shapes, "looks like a Swin"),
    "torchvision's own Swin": ("deo", lambda: without(swin_shapes(), "conv_"), "no conv_ms"),
    "a Swin of three stages": (
        "deo",
        lambda: without(swin_shapes(), "features.6."),
        r"\(2, 2, 18, 0\) blocks per stage",
    ),
    "heads that do not divide the width": (
        "deo",
        lambda: swin_shapes() | {"features.0.0.attn.relative_position_bias_table": (169, 3)},
        "which do not divide it",
    ),
    "a table of no window": (
        "deo",
        lambda: swin_shapes() | {"features.0.0.attn.relative_position_bias_table": (170, 4)},
        "170 rows",
    ),
    "a ViT of 6 blocks": (
        "deo:vit",
        lambda: {key: s for key, s in vit_shapes().items() if not key.startswith(("blocks.6", "blocks.7", "blocks.1"))},
        "width 768 and 7 blocks; deo:vit has 768 and 12",
    ),
    "positions of no square": ("deo:vit", lambda: vit_shapes(positions=786), "785 positions, which is no square grid"),
    "oblong patches": (
        "deo:vit",
        lambda: vit_shapes() | {"patch_embed_ms.proj.weight": (768, 10, 8, 16)},
        "patches of 8 x 16 pixels",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    label, shapes, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(label, shapes())


@pytest.fixture(scope="module")
def other() -> torch.nn.Module:
    """TorchGeo's implementation, with weights that let every part be seen: its position tables start near zero."""
    torchgeo_models = pytest.importorskip("torchgeo.models")
    torch.manual_seed(0)
    model = torchgeo_models.DEO().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("relative_position_bias_table", "bias")):
                parameter.normal_(std=0.5)
    return model


def test_a_training_checkpoint_gives_the_features_of_torchgeos_implementation(other: torch.nn.Module, tmp_path: Path):
    """Container, prefixes and heads as training writes them; the window follows from the file."""
    student: dict[str, Tensor] = {}
    for key, value in other.state_dict().items():
        key = key.removeprefix("feat_extr.")
        student[f"module._orig_mod.{key}" if key.startswith("conv_") else f"module._orig_mod.backbone.{key}"] = value
    student["module._orig_mod.head_ms.mlp.0.weight"] = torch.zeros(2, 2)
    torch.save({"student": student, "epoch": 3}, tmp_path / "checkpoint.pth")
    model = models.build("deo", str(tmp_path / "checkpoint.pth"))
    assert isinstance(model, DeoSwin)
    assert model.window == 12
    for bands, mode, size in ((10, "ms", (64, 96)), (3, "rgb", (60, 36))):
        image = torch.randn(1, bands, *size, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            theirs = other.forward_features(image)  # pyright: ignore[reportCallIssue]
        ours = model(Batch({"optical": image}, mode)).stages
        for stage, reference in zip(ours, theirs, strict=True):
            torch.testing.assert_close(stage, reference.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_the_released_file_of_torchgeo_has_its_prefix_stripped(other: torch.nn.Module):
    state = state_dict(other.state_dict(), SWIN.checkpoint)
    model = build("deo", state_shapes(state))
    load(model, state)
    assert torch.equal(model.state_dict()["norm.weight"], other.state_dict()["feat_extr.norm.weight"])


def test_statistics_and_file_are_those_that_torchgeo_pins():
    torchgeo_deo = pytest.importorskip("torchgeo.models.deo")
    weights = torchgeo_deo.DEO_Weights.DEO_SWIN
    statistics = SWIN.mode("ms").normalisation[1]
    assert isinstance(statistics, ZScore)
    assert statistics.mean == tuple(weights.transforms.mean)
    assert statistics.std == tuple(weights.transforms.std)
    checkpoint = SWIN.checkpoint
    assert weights.url.endswith(f"{checkpoint.repo}/resolve/{checkpoint.revision}/{checkpoint.file}")
    assert checkpoint.sha256 in weights.url
    names = [f"S2:B{int(name[1:]):02d}" if name[1:].isdigit() else f"S2:{name}" for name in weights.meta["bands"]]
    assert tuple(names) == SWIN.mode("ms").bands
    assert weights.meta["img_size"] == SWIN.mode("ms").size


def test_the_index_tables_are_our_own_whatever_the_file_says():
    model = build("deo", swin_shapes(7))
    state = {key: torch.zeros(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}
    index = "features.0.0.attn.relative_position_index"
    load(model, {**state, index: torch.full((2401,), 10_000)})
    assert int(model.get_buffer(index).max()) == 168
