"""Panopticon: official files, channel ids from the batch, and positions resized as DINO does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

import models
from harness import verify
from models import panopticon
from models.common.backbone import Batch, state_shapes
from models.common.errors import UserError
from models.common.weights import load, parameters_on_meta, state_dict
from models.networks.panopticon import Panopticon
from models.parity import kit

CARD = models.card("panopticon")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "panopticon"
RADAR = Batch({"sar": torch.ones(1, 2, 28, 28)}, "sar")


def build(shapes: dict[str, tuple[int, ...]]) -> Panopticon:
    with parameters_on_meta():
        model = panopticon.build(CARD, shapes)
    assert isinstance(model, Panopticon)
    return model


def official() -> dict[str, tuple[int, ...]]:
    return state_shapes(build({}).state_dict())


def test_the_official_file_is_loaded_without_its_mask_token():
    file = {key: torch.zeros(()).expand(shape) for key, shape in official().items()} | {"mask_token": torch.zeros(1)}
    model = build(official())
    load(model, state_dict(file, CARD.checkpoint))
    assert model.get_parameter("pos_embed").shape == (1, 1370, 768)


def test_the_published_file_is_the_one_that_torchgeo_pins():
    weights = pytest.importorskip("torchgeo.models").Panopticon_Weights.VIT_BASE14
    assert weights.url.endswith(f"{CARD.checkpoint.repo}/resolve/{CARD.checkpoint.revision}/{CARD.checkpoint.file}")


REFUSED = {
    "patch 16": ({"patch_embed.conv3d.conv3d.weight": (2304, 1, 1, 16, 16)}, r"\(768, 12, 16\); panopticon has"),
    "another width": ({"cls_token": (1, 1, 1024)}, r"\(1024, 12, 14\)"),
    "no square grid": ({"pos_embed": (1, 200, 768)}, "199 positions, which is no square grid"),
    "another ViT": ({"patch_embed.conv3d.conv3d.weight": ()}, "no patch_embed.conv3d or cls_token"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    change, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(official() | change)


def test_wavelengths_are_floored_radar_has_the_authors_ids_and_the_batch_stays_as_it_was():
    model = models.build("panopticon", "random")
    for name in ("transmit", "receive", "orbit"):  # zero at first, which would hide them
        torch.nn.init.normal_(model.get_parameter(f"patch_embed.chnfus.chnemb.embed_{name}"))
    image = {"optical": torch.rand(1, 2, 28, 28, generator=torch.Generator().manual_seed(1))}
    told = {"optical": (664.6, 492.9)}
    batch = Batch(image, "spectral", wavelengths=told)
    with torch.no_grad():
        one, other = model(batch), model(replace(batch, wavelengths={"optical": (664, 492)}))
        assert torch.equal(one.pooled, other.pooled)
        assert told == {"optical": (664.6, 492.9)}
        assert not torch.allclose(one.pooled, model(replace(batch, wavelengths={"optical": (664, 493)})).pooled)
        named = model(replace(RADAR, bands={"sar": ("S1:VV", "S1:VH")})).pooled
        assert torch.equal(named, model(replace(RADAR, wavelengths={"sar": (-1, -2)})).pooled)
        assert not torch.allclose(named, model(replace(RADAR, wavelengths={"sar": (-5, -6)})).pooled)


def test_what_is_no_wavelength_and_no_radar_channel_is_refused():
    model = build({})
    for wrong in ((-13.0, -1.0), (-1.5, -1.0)):
        with pytest.raises(UserError, match=r"ids of radar channels, -1..-12"):
            model.channels(replace(RADAR, wavelengths={"sar": wrong}))
    with pytest.raises(UserError, match="none is known of band S1:HH"):
        model.channels(replace(RADAR, bands={"sar": ("S1:HH", "S1:VV")}))


def test_positions_resized_as_torchgeo_does_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    def by_size(table: Tensor, size: tuple[int, int], patch: int) -> Tensor:
        return resample_abs_pos_embed(table, [size[0] // patch, size[1] // patch])

    monkeypatch.setattr("models.networks.panopticon.resize_positions", by_size)
    facts = kit.read(SLIM)
    outcome = verify.run(
        replace(facts, cases=tuple(case for case in facts.cases if case.name == "rgb224_pos500")), "panopticon"
    )
    assert not outcome.passed
    assert outcome.error > 100 * outcome.limit
