"""RADIO: the official containers, input statistics inside the network, what is read off a checkpoint and refused."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

import models
from harness import verify
from models import radio
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.errors import UserError
from models.common.weights import parameters_on_meta
from models.networks.radio import CLIP_MEAN, CLIP_STD, EMBEDDER, POSITIONS, TOKENS, Radio, crop_positions

CARD = models.card("radio")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "radio"


def build(shapes: dict[str, tuple[int, ...]]) -> Radio:
    with parameters_on_meta():
        model = radio.build(CARD, shapes)
    assert isinstance(model, Radio)
    return model


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The backbone's entries without a prefix, with a small grid of positions and values that half precision holds."""
    generator = torch.Generator().manual_seed(0)
    shapes = official() | {POSITIONS: (1, 64, 768)}
    values = {key: (torch.randn(shape, generator=generator) * 0.05).half() for key, shape in shapes.items()}
    values["input_conditioner.norm_mean"] = torch.tensor(CLIP_MEAN).view(3, 1, 1)
    values["input_conditioner.norm_std"] = torch.tensor(CLIP_STD).view(3, 1, 1)
    return values


def official() -> dict[str, tuple[int, ...]]:
    return state_shapes(build({}).state_dict())


def file_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in the official file: `base_model.` before the network's entries, not before the conditioner's."""
    return {key if key.startswith("input_") else f"base_model.{key}": value for key, value in weights.items()}


def assert_holds(model: Backbone, weights: dict[str, Tensor]) -> None:
    assert set(model.state_dict()) == set(weights)
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[key].float())


def test_the_official_file_is_read_with_arguments_heads_and_half_precision(weights: dict[str, Tensor], tmp_path: Path):
    extras = {
        "_heads.2.fc1.weight": torch.zeros(4, 4),
        "_feature_projections.2.fc1.weight": torch.zeros(4, 4),
        "_feature_normalizer.0.mean": torch.zeros(4),
        "_intermediate_feature_normalizer.means": torch.zeros(4),
    }
    arguments = Namespace(model="vit_base_patch16_224", cpe_max_size=2048, teachers=[{"name": "clip"}])
    stale = {"base_model.norm.weight": torch.zeros(1)}
    averaged = {"arch": "vit", "state_dict": stale, "state_dict_ema": {}, "args": arguments}
    averaged["state_dict_ema"] = {f"module.{key}": value for key, value in (file_names(weights) | extras).items()}
    torch.save(averaged, tmp_path / "averaged.pth.tar")
    torch.save({"state_dict": file_names(weights) | extras, "args": arguments}, tmp_path / "plain.pth.tar")
    for name in ("averaged", "plain"):
        assert_holds(models.build("radio", str(tmp_path / f"{name}.pth.tar")), weights)


def test_the_hubs_safetensors_are_read_under_their_own_names(weights: dict[str, Tensor], tmp_path: Path):
    names = {f"radio_model.{'' if key.startswith('input_') else 'model.'}{key}": weights[key] for key in weights}
    save_file({**names, "radio_model.summary_idxs": torch.tensor([0, 1, 2])}, tmp_path / "model.safetensors")
    assert_holds(models.build("radio", str(tmp_path / "model.safetensors")), weights)


def test_the_network_applies_clips_statistics_itself_and_the_card_does_not(weights: dict[str, Tensor], tmp_path: Path):
    torch.save({"state_dict": file_names(weights)}, tmp_path / "file.pth.tar")
    model = models.build("radio", str(tmp_path / "file.pth.tar"))
    assert isinstance(model, Radio)
    assert [step.describe() for step in CARD.mode("rgb").normalisation] == ["divide by 255"]
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    normalised = (image - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    inside = model(Batch({"optical": image}, "rgb"))
    model.conditioned = False
    outside = model(Batch({"optical": normalised}, "rgb"))
    torch.testing.assert_close(inside.stages[3], outside.stages[3])
    assert inside.pooled.shape == (1, 2304)


def test_images_beyond_the_grid_of_positions_are_refused(weights: dict[str, Tensor], tmp_path: Path):
    torch.save({"state_dict": file_names(weights)}, tmp_path / "file.pth.tar")
    model = models.build("radio", str(tmp_path / "file.pth.tar"))
    model(Batch({"optical": torch.zeros(1, 3, 128, 32)}, "rgb"))
    with pytest.raises(UserError, match="takes images up to 128 pixels"):
        model(Batch({"optical": torch.zeros(1, 3, 32, 144)}, "rgb"))


def test_positions_of_an_oblong_image_are_the_top_left_of_a_square():
    """A table that is its own row number: half as many rows lie between pairs of the stored ones."""
    rows = torch.arange(8.0).repeat_interleave(8).view(1, 64, 1)
    found = crop_positions(rows, 8, (2, 4)).view(2, 4)
    assert found.tolist() == [[0.5] * 4, [2.5] * 4]
    assert crop_positions(rows, 8, (8, 8)) is rows


REFUSED = {
    "weights not realised": ({"blocks.0.mlp.fc1.parametrizations.weight.original": (3072, 768)}, "reparametrised"),
    "RADIOv2.5-L": ({EMBEDDER: (1024, 768)}, "width 1024, 12 blocks"),
    "patch 14": ({EMBEDDER: (768, 3 * 14 * 14)}, "patch size 14"),
    "more class tokens": ({TOKENS: (16, 768)}, "16 class and register tokens; radio has 768, 12, 16 and 8"),
    "positions of no square": ({POSITIONS: (1, 50, 768)}, "50 positions, which is no square grid"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    change, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(official() | change)


def test_a_model_without_a_patch_generator_is_refused():
    with pytest.raises(UserError, match=r"no patch_generator.embedder.weight; it looks like another ViT"):
        build({"patch_embed.proj.weight": (768, 3, 16, 16)})


def test_positions_with_corners_aligned_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    """As other releases of the official code resize them."""

    def aligned(table: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
        longer, square = max(grid), table.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        square = functional.interpolate(square, size=(longer, longer), mode="bilinear", align_corners=True)
        return square[..., : grid[0], : grid[1]].flatten(2).transpose(1, 2)

    assert verify.run_kit(SLIM).passed
    monkeypatch.setattr("models.networks.radio.crop_positions", aligned)
    outcome = verify.run_kit(SLIM)
    assert outcome.error > 100 * outcome.limit
