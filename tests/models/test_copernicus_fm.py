"""Copernicus-FM: official files, wavelengths and metadata from the batch, and one image's NaN is its own affair."""

from dataclasses import replace
from functools import partial
from math import nan
from pathlib import Path

import pytest
import torch

import models
from harness import verify
from models import copernicus_fm
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import Band, band
from models.common.weights import load, parameters_on_meta, state_dict
from models.networks.copernicus_fm import CopernicusFM
from models.parity import kit

CARD = models.card("copernicus_fm")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "copernicus_fm"
RGB = Batch(
    {"optical": torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))},
    "spectral",
    wavelengths={"optical": (665, 560, 490)},
    bandwidths={"optical": (30, 35, 65)},
)


@pytest.fixture(scope="module")
def model() -> CopernicusFM:
    built = models.build("copernicus_fm", "random")
    assert isinstance(built, CopernicusFM)
    for name in ("coord_token", "scale_token", "time_token"):  # zero at first, which would hide them
        torch.nn.init.normal_(built.get_parameter(name))
    return built


def pooled(model: Backbone, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model(batch).pooled


def official() -> dict[str, tuple[int, ...]]:
    with parameters_on_meta():
        return state_shapes(copernicus_fm.build(CARD, {}).state_dict())


@pytest.mark.parametrize("container", [None, "model"])
def test_the_official_file_is_loaded_flat_and_below_model_with_decoder_and_teacher_beside(container: str | None):
    beside = ("decoder_embed.weight", "mask_token", "coord_fc_decoder.bias", "teacher.x", "patch_embed_variable.y")
    file = {key: torch.zeros(()).expand(shape) for key, shape in official().items()}
    file |= {key: torch.zeros(1) for key in beside}
    with parameters_on_meta():
        built = copernicus_fm.build(CARD, official())
    load(built, state_dict({container: file} if container else file, CARD.checkpoint))
    assert built.get_parameter("coord_fc.weight").shape == (768, 768)


REFUSED = {
    "a DOFA": ({"coord_token": None}, "no patch_embed_spectral, coord_token or norm"),
    "a classifier with fc_norm": ({"norm.weight": None}, "no patch_embed_spectral, coord_token or norm"),
    "another width": ({"coord_token": (1, 1, 1024)}, "width 1024"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    change, sentence = REFUSED[what]
    shapes = {key: shape for key, shape in (official() | change).items() if shape is not None}
    with parameters_on_meta(), pytest.raises(UserError, match=sentence):
        copernicus_fm.build(CARD, shapes)


def test_wavelengths_bandwidths_place_time_and_gsd_of_the_batch_reach_the_features(model: CopernicusFM):
    before = pooled(model, RGB)
    place = torch.tensor([[15.5, 46.25]] * 3)
    for changed in (
        replace(RGB, wavelengths={"optical": (665, 560, 842)}),
        replace(RGB, bandwidths={"optical": (30, 35, 115)}),
        replace(RGB, location=place),
        replace(RGB, time=torch.full((3,), 18537.0)),
        replace(RGB, gsd=10.0),
    ):
        assert not torch.allclose(pooled(model, changed), before, atol=1e-4)


def test_an_image_without_a_place_does_not_hide_that_of_its_neighbours_as_it_does_in_the_authors_function(
    model: CopernicusFM, monkeypatch: pytest.MonkeyPatch
):
    place = torch.tensor([[15.5, 46.25], [nan, nan], [-70.25, -33.5]])
    mixed, nowhere = replace(RGB, location=place), pooled(model, RGB)
    found = pooled(model, mixed)
    for index in range(3):
        alone = replace(mixed, images={"optical": RGB.images["optical"][index : index + 1]}, location=place[[index]])
        torch.testing.assert_close(found[index], pooled(model, alone)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], nowhere[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], nowhere[0], atol=1e-4)
    monkeypatch.setattr(model, "per_sample", False)
    torch.testing.assert_close(pooled(model, mixed), nowhere, rtol=1e-4, atol=1e-4)


def test_the_area_of_a_patch_follows_from_the_gsd_and_is_unknown_where_the_encoding_ends(model: CopernicusFM):
    image = RGB.images["optical"]
    assert torch.allclose(model.metadata(replace(RGB, gsd=10.0), image)[:, 3], torch.tensor(0.0256))
    assert bool(model.metadata(replace(RGB, gsd=1.0), image)[:, 3].isnan().all())
    assert bool(model.metadata(RGB, image).isnan().all())


def test_a_band_that_is_not_known_by_wavelength_is_named(model: CopernicusFM):
    names = {"optical": ("S2:B04", "CLOUD:probability", "S2:B02")}
    unknown = replace(RGB, bands=names, wavelengths={"optical": (665, nan, 490)})
    with pytest.raises(UserError, match="takes bands by wavelengths, and none is known of band CLOUD:probability"):
        model(unknown)
    with pytest.raises(UserError, match="none is known of band number 1"):
        model(replace(RGB, wavelengths={}))
    with pytest.raises(UserError, match="3 bands, but 0 names and 2 wavelengths"):
        model(replace(RGB, wavelengths={"optical": (665, 560)}))
    with pytest.raises(UserError, match=r"from 100 to 1e9 nm, got 0\.665"):
        model(replace(RGB, wavelengths={"optical": (0.665, 0.56, 0.49)}))
    with pytest.raises(UserError, match="beyond 180 degrees of longitude or 90 of latitude"):
        model(replace(RGB, location=torch.tensor([[46.25, 115.5]] * 3)))


def test_bands_of_unknown_wavelength_are_left_out_of_a_data_set_and_the_row_says_so():
    bands = [band("S2:B04", "r", "dn"), band("CLOUD:probability", "c", "undocumented")]
    bands = [replace(one, mean=5.0, std=2.0) for one in bands]
    transform = compile_transform(CARD, bands)
    assert transform.read == ("S2:B04",)
    assert transform.notes == (
        "left out, since spectral takes bands by wavelength and theirs is not known: CLOUD:probability",
    )
    assert transform.batch(torch.zeros(1, 1, 32, 48), gsd=10).wavelengths == {"optical": (664.6,)}
    assert transform.batch(torch.zeros(1, 1, 32, 48), gsd=10).images["optical"].shape == (1, 1, 224, 224)
    with pytest.raises(UserError, match="no band of known wavelength"):
        compile_transform(CARD, [Band("CLOUD:probability", "c", "undocumented", mean=1, std=1)])


def test_positions_resized_without_antialias_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    from torchgeo.models import copernicusfm

    plain = partial(copernicusfm.resize_abs_pos_embed, antialias=False)
    monkeypatch.setattr(copernicusfm, "resize_abs_pos_embed", plain)
    facts = kit.read(SLIM)
    outcome = verify.run(
        replace(facts, cases=tuple(case for case in facts.cases if case.name == "s2_64_k8_partialmeta")),
        "copernicus_fm",
    )
    assert not outcome.passed
    assert outcome.error > 5 * outcome.limit
