"""MAE: the official files, which checkpoints are refused, and positions resized as the authors do."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import models
from harness import verify
from models import mae
from models.common.backbone import Backbone, state_shapes
from models.common.errors import UserError
from models.common.weights import load, parameters_on_meta, state_dict

CARD = models.card("mae")
SLIM = Path(__file__).resolve().parents[1] / "parity"
DECODER = {"mask_token": (1, 1, 512), "decoder_pos_embed": (1, 197, 512), "decoder_blocks.0.norm1.weight": (512,)}


def build(shapes: dict[str, tuple[int, ...]]) -> Backbone:
    with parameters_on_meta():
        return mae.build(CARD, shapes)


@pytest.fixture(scope="module")
def official() -> dict[str, tuple[int, ...]]:
    return state_shapes(build({}).state_dict())


def constants(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A different number for every entry, each stored once: a file of full shape and small size."""
    return {key: torch.tensor(1.0 + index).expand(shape) for index, (key, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("beside", [{}, DECODER], ids=["the encoder alone", "the file with the decoder"])
def test_both_official_files_are_read(tmp_path: Path, official: dict[str, tuple[int, ...]], beside):
    file = constants(official | beside)
    torch.save({"model": file}, tmp_path / CARD.checkpoint.file)
    model = models.build("mae", str(tmp_path / CARD.checkpoint.file))
    assert {name: float(value.flatten()[-1]) for name, value in model.state_dict().items()} == {
        name: float(file[name].flatten()[-1]) for name in official
    }


REFUSED = {
    "ViT-B": (
        lambda shapes: (
            {key: shape for key, shape in shapes.items() if not key.startswith(("blocks.1", "blocks.2"))}
            | {"patch_embed.proj.weight": (768, 3, 16, 16)}
        ),
        "width 768 and 8 blocks; mae has 1024 and 24",
    ),
    "patch 14": (
        lambda shapes: shapes | {"patch_embed.proj.weight": (1024, 3, 14, 14)},
        "patch size 14; mae has 16",
    ),
    "no positions": (lambda shapes: {k: s for k, s in shapes.items() if k != "pos_embed"}, "has no position table"),
    "SatMAE's groups": (
        lambda shapes: {"cls_token": (1, 1, 1024), "patch_embed.0.proj.weight": (1024, 4, 8, 8)},
        r"looks like SatMAE's ViT of channel groups \(satmae:sentinel\)",
    ),
    "the transformers library": (lambda shapes: {"embeddings.cls_token": (1, 1, 1024)}, "transformers library"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str, official: dict[str, tuple[int, ...]]):
    change, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(change(official))


def test_a_fine_tuned_file_is_refused_for_the_norm_that_pretraining_has_not(official: dict[str, tuple[int, ...]]):
    tuned = constants({key.replace("norm.", "fc_norm.") if key[0] == "n" else key: s for key, s in official.items()})
    state = state_dict({"model": tuned}, CARD.checkpoint)
    with pytest.raises(UserError, match=r"2 missing: norm\.weight, norm\.bias; 2 unexpected: fc_norm\.weight"):
        load(build(state_shapes(state)), state)


def test_an_antialiased_resize_of_positions_does_not_pass(monkeypatch: pytest.MonkeyPatch):
    interpolate = functional.interpolate

    def antialiased(*arguments, **options) -> Tensor:
        return interpolate(*arguments, **options | {"antialias": True})

    monkeypatch.setattr(functional, "interpolate", antialiased)
    outcome = verify.run_kit(SLIM / "mae")
    assert outcome.worst.startswith("c160_pos50/")
    assert outcome.error > 100 * outcome.limit
