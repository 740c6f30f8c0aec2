"""DOFA: official files, wavelengths from the batch, the one size, and radar's long wavelength in float32."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models
from harness import verify
from models import dofa
from models.common.backbone import Batch, state_shapes
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import band
from models.common.weights import load, parameters_on_meta, state_dict
from models.networks.dofa import Dofa
from models.parity import kit

CARD = models.card("dofa")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "dofa"


def build(shapes: dict[str, tuple[int, ...]]) -> Dofa:
    with parameters_on_meta():
        model = dofa.build(CARD, shapes)
    assert isinstance(model, Dofa)
    return model


def official() -> dict[str, tuple[int, ...]]:
    return state_shapes(build({}).state_dict())


def test_the_official_file_is_loaded_without_its_unused_entries():
    file = {key: torch.zeros(()).expand(shape) for key, shape in official().items()}
    file |= {key: torch.zeros(1) for key in ("mask_token", "norm.weight", "norm.bias", "projector.weight")}
    model = build(official())
    load(model, state_dict(file, CARD.checkpoint))
    assert not hasattr(model, "norm")


def test_the_published_file_is_the_one_that_torchgeo_pins():
    weights = pytest.importorskip("torchgeo.models").DOFABase16_Weights.DOFA_MAE
    assert weights.url.endswith(f"{CARD.checkpoint.repo}/resolve/{CARD.checkpoint.revision}/{CARD.checkpoint.file}")
    assert CARD.checkpoint.sha256 in weights.url


REFUSED = {
    "DOFA large": ({"cls_token": (1, 1, 1024)}, r"\(1024, 12, 192, 197\); dofa has \(768, 12, 256, 197\)"),
    "another grid": ({"pos_embed": (1, 257, 768)}, "257"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    change, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(official() | change)


def test_a_plain_vit_is_named_as_such():
    with pytest.raises(UserError, match=r"no patch_embed\.weight_generator or cls_token; it looks like another ViT"):
        build({"patch_embed.proj.weight": (768, 3, 16, 16), "cls_token": (1, 1, 768)})


def test_wavelengths_are_those_of_the_batch_and_the_authors_for_radar():
    model, image = build({}), torch.zeros(1, 2, 224, 224)
    optical = Batch({"optical": image}, "spectral", wavelengths={"optical": (664.6, 492.4)})
    assert model.wavelengths(optical) == (664.6, 492.4)
    assert model.wavelengths(Batch({"sar": image}, "sar")) == (5405.0, 5405.0)
    with pytest.raises(UserError, match="none is known of band TCI:red"):
        model.wavelengths(replace(optical, wavelengths={}, bands={"optical": ("TCI:red", "S2:B02")}))


def test_every_image_is_brought_to_224_pixels_and_nothing_else_is_taken():
    bands = [replace(band("S2:B04", "r", "dn"), mean=1.0, std=1.0)]
    for size in ("native", "model", 96):
        transform = compile_transform(CARD, bands, input_size=size, fit="pad")
        assert transform(torch.zeros(1, 1, 64, 96)).shape == (1, 1, 224, 224)
        assert "the only size" in " ".join(transform.describe())
    batch = Batch({"optical": torch.zeros(1, 1, 96, 96)}, "spectral", wavelengths={"optical": (665,)})
    with pytest.raises(UserError, match=r"wants images of 224 x 224 pixels, got \(96, 96\)"):
        build({}).check(batch)


def test_wavelengths_encoded_in_float64_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    from torchgeo.models import dofa as theirs

    encode = theirs.position_embedding

    def in_float64(width: int, positions: Tensor) -> Tensor:
        return encode(width, positions.double()).float()

    monkeypatch.setattr(theirs, "position_embedding", in_float64)
    facts = kit.read(SLIM)
    outcome = verify.run(replace(facts, cases=tuple(case for case in facts.cases if case.name == "s1")), "dofa")
    assert not outcome.passed
    assert outcome.error > outcome.limit
