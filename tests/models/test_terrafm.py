"""TerraFM: which checkpoints are taken, which stem an image takes, and what is done where nothing is documented."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

import models
from harness import verify
from models import terrafm
from models.common.backbone import Batch, state_shapes
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import Band
from models.common.weights import load, parameters_on_meta, state_dict
from models.networks.terrafm import TerraFM
from models.parity import kit

CARD = models.card("terrafm")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "terrafm"


def build(shapes: dict[str, tuple[int, ...]]) -> TerraFM:
    with parameters_on_meta():
        model = terrafm.build(CARD, shapes)
    assert isinstance(model, TerraFM)
    return model


def official() -> dict[str, tuple[int, ...]]:
    return state_shapes(build({}).state_dict())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_flat_file_is_loaded_with_and_without_prefix_and_head(prefix: str):
    file = {f"{prefix}{key}": torch.zeros(()).expand(shape) for key, shape in official().items()}
    file[f"{prefix}head.weight"] = torch.zeros(2, 2)
    model = build(official())
    load(model, state_dict(file, CARD.checkpoint))
    assert model.get_parameter("patch_embed.s1_embed").shape == (1, 2304)


REFUSED = {
    "TerraFM-L": ({"cls_token": (1, 1, 1024)}, "width 1024, 12 blocks and patch size 16; terrafm has 768, 12 and 16"),
    "patch 8": ({"patch_embed.conv2d_s2_l1c.weight": (2304, 12, 8, 8)}, "patch size 8"),
    "another ViT": ({"patch_embed.conv2d_s2_l1c.weight": ()}, "no patch_embed.conv2d_s2_l1c"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    change, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(official() | change)


def test_twelve_bands_always_take_the_l1c_stem_and_two_the_radar_stem():
    model = build({})
    assert model.stem(Batch({"optical": torch.zeros(1, 12, 16, 16)}, "ms")) == "s2_l1c"
    assert model.stem(Batch({"sar": torch.zeros(1, 2, 16, 16)}, "sar")) == "s1"


def test_the_data_sets_z_score_stands_in_for_what_is_not_published_and_rgb_alone_is_filled_up_with_zeros_on_request():
    bands = [Band(f"S2:B{n:02d}", str(n), "uint8", mean=10.0 * n, std=2.0) for n in (2, 3, 4)]
    with pytest.raises(UserError, match="the data set has no S2:B01"):
        compile_transform(CARD, bands)
    transform = compile_transform(CARD, bands, missing_bands="zero", input_size="native")
    assert any("undocumented" in note for note in transform.notes)
    image = transform(torch.full((1, 3, 16, 16), 30.0))
    assert image[0, :, 0, 0].tolist() == [0, 5, 0, -5, *[0] * 8]


def test_positions_resized_by_size_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    def by_size(table: Tensor, size: tuple[int, int], patch: int) -> Tensor:
        return resample_abs_pos_embed(table, [size[0] // patch, size[1] // patch], antialias=False)

    monkeypatch.setattr("models.networks.terrafm.resize_positions", by_size)
    facts = kit.read(SLIM)
    outcome = verify.run(
        replace(facts, cases=tuple(case for case in facts.cases if case.name == "pos160x96")), "terrafm"
    )
    assert not outcome.passed
    assert outcome.error > 100 * outcome.limit
