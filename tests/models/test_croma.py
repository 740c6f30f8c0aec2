"""CROMA: the nested container, encoders by checkpoint, the joint mode, and its normalisation from a data set's statistics."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models
from harness import verify
from models import croma
from models.common.backbone import Batch, state_shapes
from models.common.bands import compile_transform
from models.common.card import ClipToDeviations
from models.common.errors import UserError
from models.common.spectral import Band
from models.common.weights import parameters_on_meta, state_dict
from models.parity import kit

CARD = models.card("croma")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "croma"


def official() -> dict[str, tuple[int, ...]]:
    with parameters_on_meta():
        return state_shapes(croma.build(CARD, {}).state_dict())


def container(shapes: dict[str, tuple[int, ...]]) -> dict[str, dict[str, Tensor]]:
    """The released layout: an entry per encoder, each a state dict."""
    file: dict[str, dict[str, Tensor]] = {}
    for key, shape in shapes.items():
        part, _, inner = key.partition(".")
        file.setdefault(part, {})[inner] = torch.zeros(()).expand(shape)
    return file


def test_the_nested_container_gives_the_keys_of_the_network():
    file = container(official())
    assert sorted(file) == ["joint_encoder", "s1_GAP_FFN", "s1_encoder", "s2_GAP_FFN", "s2_encoder"]
    assert state_shapes(state_dict(file, CARD.checkpoint)) == official()


def test_a_file_of_the_radar_encoder_alone_is_loaded_and_has_the_radar_mode_alone(tmp_path: Path):
    torch.save(
        {part: keys for part, keys in container(official()).items() if part.startswith("s1")}, tmp_path / "s1.pt"
    )
    model = models.build("croma", str(tmp_path / "s1.pt"))
    assert [mode.name for mode in model.card.inputs] == ["sar"]
    assert len(list(model.get_submodule("s1_encoder.transformer.layers"))) == 6
    with pytest.raises(UserError, match="no input mode"):
        model(Batch({"optical": torch.zeros(1, 12, 16, 16)}, "ms"))


REFUSED = {
    "CROMA large": (
        lambda s: {key: (1024, *shape[1:]) for key, shape in s.items()},
        r"width 1024 \(CROMA large has 1024\); croma has 768",
    ),
    "another model": (lambda s: {"patch_embed.proj.weight": (768, 3, 16, 16)}, "no s1_encoder and no s2_encoder"),
    "a joint encoder alone": (
        lambda s: {key: shape for key, shape in s.items() if not key.startswith("s1")},
        "without both of s1_encoder and s2_encoder",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    change, sentence = REFUSED[what]
    with parameters_on_meta(), pytest.raises(UserError, match=sentence):
        croma.build(CARD, change(official()))


def test_the_joint_mode_wants_both_sensors_of_one_size():
    with parameters_on_meta():
        model = croma.build(CARD, {})
    optical, radar = torch.zeros(1, 12, 16, 16), torch.zeros(1, 2, 24, 24)
    with pytest.raises(UserError, match=r"croma \(sar\) wants sensor 'sar'; the batch holds optical"):
        model.check(Batch({"optical": optical}, "joint"))
    with pytest.raises(UserError, match="images of one number and size"):
        model.check(Batch({"optical": optical, "sar": radar}, "joint"))
    with pytest.raises(UserError, match="wants square images"):
        model.check(Batch({"optical": torch.zeros(1, 12, 16, 24)}, "ms"))


def test_values_two_deviations_from_the_mean_of_the_data_set_become_0_and_1_in_truncated_steps():
    bands = [Band(name, name, "dn", mean=1000.0, std=250.0) for name in CARD.mode("ms").bands]
    transform = compile_transform(CARD, bands, input_size="native")
    assert transform.mode.name == "ms"
    assert transform.steps == (ClipToDeviations(2.0, True, (1000.0,) * 12, (250.0,) * 12),)
    values = torch.tensor([0.0, 500.0, 1000.0, 1500.0, 9999.0, 503.9]).view(1, 1, 1, 6).expand(1, 12, 8, 6)
    found = transform(torch.nn.functional.pad(values, (0, 2)))[0, 0, 0, :6]
    # 1000 is 127.5 of 255 and truncated to 127; 503.9 is 0.99 of a step and truncated to 0.
    assert torch.allclose(found, torch.tensor([0.0, 0.0, 127 / 255, 1.0, 1.0, 0.0]))


def test_without_the_distances_between_patches_the_kit_does_not_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.networks.croma.alibi", lambda heads, side: torch.zeros(1, heads, side**2, side**2))
    facts = kit.read(SLIM)
    outcome = verify.run(replace(facts, cases=tuple(case for case in facts.cases if case.name == "s96")), "croma")
    assert not outcome.passed
    assert outcome.error > 100 * outcome.limit
