"""SatMAE: the official files, the eight-bit normalisation of Sentinel-2, and fresh positions at any size but one."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, cat
from torch.nn import functional

import models
from harness import verify
from models import satmae
from models.common.backbone import Backbone, state_shapes
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import Band
from models.common.weights import parameters_on_meta

SLIM = Path(__file__).resolve().parents[1] / "parity"
LABELS = ("satmae", "satmae:sentinel")


def build(label: str, shapes: dict[str, tuple[int, ...]]) -> Backbone:
    with parameters_on_meta():
        return satmae.build(models.card(label), shapes)


@pytest.fixture(scope="module")
def official() -> dict[str, dict[str, tuple[int, ...]]]:
    return {label: state_shapes(build(label, {}).state_dict()) for label in LABELS}


@pytest.mark.parametrize("label", LABELS)
def test_the_official_training_file_is_read(tmp_path: Path, official: dict[str, dict], label: str):
    """With its decoder, its optimiser and the arguments it was trained with; every entry holds another number."""
    decoder = {"mask_token": (1, 1, 512), "decoder_pos_embed": (1, 197, 512), "decoder_norm.weight": (512,)}
    file = {key: torch.tensor(1.0 + i).expand(s) for i, (key, s) in enumerate((official[label] | decoder).items())}
    content = {"model": file, "optimizer": {}, "epoch": 199, "scaler": {}, "args": argparse.Namespace(mask_ratio=0.75)}
    torch.save(content, tmp_path / "file.pth")
    model = models.build(label, str(tmp_path / "file.pth"))
    assert {name: float(value.flatten()[-1]) for name, value in model.state_dict().items()} == {
        name: float(file[name].flatten()[-1]) for name in official[label]
    }


REFUSED = {
    "the RGB model for the groups": (
        "satmae:sentinel",
        lambda official: official["satmae"],
        r"no patch_embed\.0\.proj\.weight or cls_token; it looks like another ViT",
    ),
    "the groups for the RGB model": (
        "satmae",
        lambda official: official["satmae:sentinel"],
        r"it looks like SatMAE's ViT of channel groups \(satmae:sentinel\)",
    ),
    "other groups": (
        "satmae:sentinel",
        lambda official: official["satmae:sentinel"] | {"patch_embed.2.proj.weight": (1024, 3, 8, 8)},
        r"groups of \(4, 4, 3\) bands; satmae:sentinel has \(4, 4, 2\)",
    ),
    "the temporal model's patch": (
        "satmae",
        lambda official: official["satmae"] | {"patch_embed.proj.weight": (1024, 3, 14, 14)},
        "patch size 14; satmae has 16",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(official: dict[str, dict], what: str):
    label, shapes, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(label, shapes(official))


def test_sentinel_2_is_clipped_and_truncated_as_the_authors_do_and_only_then_resized():
    """Against what the official `SentinelNormalize` gives for six digital numbers in every band."""
    example = json.loads((SLIM / "satmae_sentinel" / "manifest.json").read_text())["input"]["example"]
    bands = [Band(name, name, "dn") for name in (*satmae.BANDS, "S2:B01")]
    transform = compile_transform(models.card("satmae:sentinel"), bands, input_size="native")
    pixels = torch.tensor(example["dn"]).view(-1, 1, 1, 1).expand(-1, 10, 8, 8)
    found = transform(pixels)[:, :, 0, 0] * 255
    assert torch.equal(found.round(), torch.tensor(example["uint8_per_band_B2_B3_B4_B5_B6_B7_B8_B8A_B11_B12"]).float())
    steps = transform.describe()
    assert next(i for i, step in enumerate(steps) if "clip" in step) < next(
        i for i, step in enumerate(steps) if "native size" in step
    )


def test_groups_are_those_of_neighbouring_resolution_and_wavelength():
    groups = [[satmae.BANDS[index] for index in group] for group in models.card("satmae:sentinel").build["groups"]]
    assert groups == [
        ["S2:B02", "S2:B03", "S2:B04", "S2:B08"],
        ["S2:B05", "S2:B06", "S2:B07", "S2:B8A"],
        ["S2:B11", "S2:B12"],
    ]


def test_interpolated_positions_do_not_pass_for_fresh_ones(monkeypatch: pytest.MonkeyPatch):
    def interpolated(table: Tensor, grid: tuple[int, int]) -> Tensor:
        side = int((table.shape[1] - 1) ** 0.5)
        found = functional.interpolate(table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2), size=grid)
        return cat([table[:, :1], found.flatten(2).transpose(1, 2)], dim=1)

    monkeypatch.setattr("models.networks.mae.stored_or_fresh", interpolated)
    outcome = verify.run_kit(SLIM / "satmae")
    assert {failure.partition("/")[0] for failure in outcome.failures} == {"c160_pos50"}
    assert outcome.error > 100 * outcome.limit
