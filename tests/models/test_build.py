"""Models built from files in exactly the containers of their authors, at random, and from what is no file of theirs."""

import argparse
import fnmatch
import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from models.common.errors import UserError
from models.common.weights import module_digest

TOY = """
from models.common.card import Card, Checkpoint
CARD = Card(name="toy", title="Toy", inputs=(), checkpoint=Checkpoint("manual", file="toy.pth", where="nowhere"),
            channels=(4, 4, 4, 4), strides=(4, 8, 16, 32), width=4, licence="MIT", paper="none")

def build(card, shapes):
    from torch import nn
    from models.common.backbone import Backbone
    class Toy(Backbone):
        def __init__(self):
            super().__init__(card)
            self.layer = nn.Linear(shapes.get("layer.weight", (4, 3))[1], 4)
            self.drop = nn.Dropout()
    return Toy()
"""


@pytest.fixture
def toy(tmp_path: Path) -> str:
    """An adapter of one's own: the path to its file is its name."""
    (tmp_path / "toy.py").write_text(TOY)
    return str(tmp_path / "toy.py")


def test_random_weights_follow_the_seed_and_leave_the_callers_random_numbers_alone(toy):
    before = torch.get_rng_state()
    first, again, other = (models.build(toy, "random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.weights_digest, other.weights_digest) == ("random-1", "random-2")
    assert module_digest(first) == module_digest(again) != module_digest(other)


def test_a_model_is_built_frozen_and_in_eval_mode(toy):
    backbone = models.build(toy, "random")
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_a_checkpoint_decides_what_is_built_and_its_digest_is_kept(toy, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save({"layer.weight": torch.arange(20.0).view(4, 5), "layer.bias": torch.ones(4)}, path)
    before = torch.get_rng_state()
    backbone = models.build(toy, str(path))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(backbone.get_parameter("layer.weight"), torch.arange(20.0).view(4, 5))
    assert backbone.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_official_weights_come_from_the_cache(toy, tmp_path):
    with pytest.raises(UserError, match=r"no official weights for toy: .* put toy\.pth at .* \(source: nowhere\)"):
        models.build(toy, cache=tmp_path)
    path = tmp_path / "weights" / "toy" / "toy.pth"
    path.parent.mkdir(parents=True)
    torch.save({"layer.weight": torch.ones(4, 3), "layer.bias": torch.ones(4)}, path)
    backbone = models.build(toy, cache=tmp_path)
    assert backbone.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_that_does_not_fit_is_one_sentence_with_its_path(toy, tmp_path):
    path = tmp_path / "other.pth"
    for content, message in (
        ({"layer.weight": torch.ones(4, 3)}, r"the weights do not fit toy \(1 missing: layer\.bias\)"),
        ({"epoch": 1}, "the checkpoint holds no tensors by name"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=message) as caught:
            models.build(toy, str(path))
        assert str(caught.value).startswith(f"{path}: ")


def official(kit: Path) -> dict[str, torch.Tensor]:
    """A state dict with the official names and shapes: every tensor one value of its own, so that the file is small."""
    manifest = json.loads((kit / "manifest.json").read_text())
    state = {
        name: torch.full((1,), 1 + index % 900).to(getattr(torch, kind)).expand(shape)
        for index, (name, shape, kind) in enumerate(manifest["keys"])
    }
    if "constants" in manifest:  # DINOv3: float buffers of the file that are no weights
        state["rope_embed.periods"] = torch.tensor(manifest["constants"]["rope_embed.periods"]["values_bf16_rounded"])
        for name in fnmatch.filter(list(state), "blocks.*.attn.qkv.bias"):
            state[f"{name}_mask"] = torch.ones(1).expand(state[name].shape)
    return state


def deo_container(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """DEO's training checkpoint: compiled and distributed student behind a multi-crop wrapper, heads, bookkeeping."""
    stems = ("conv_ms.", "conv_rgb.")
    student = OrderedDict(
        ("_orig_mod.module." + ("" if name.startswith(stems) else "backbone.") + name, value)
        for name, value in state.items()
    )
    for head in ("head_ms.mlp.0.weight", "cls_head.weight", "patch_head_late.bias", "patch_head_mid.bias"):
        student[f"_orig_mod.module.{head}"] = torch.ones(2)
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2, 2), "exp_avg_sq": torch.zeros(2, 2)}
    return {
        "student": student,
        "teacher": OrderedDict(
            (name.replace("_orig_mod.", ""), value * 0) for name, value in list(student.items())[:9]
        ),
        "optimizer": {"state": {0: moments}, "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999), "params": [0]}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="swin_b", lr=5e-4, output=Path("out")),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 65536.0},
    }


CONTAINERS = {
    ("deo", "deo"): deo_container,
    ("deo", "deo_w7"): deo_container,
    ("deo:vit", "deo_vit"): deo_container,
    ("dinov2", "dinov2"): dict,
    ("dinov3", "dinov3"): dict,
    ("dinov3:sat", "dinov3_sat"): lambda state: {**state, "local_cls_norm.weight": torch.ones(1024)},
}


@pytest.mark.parametrize(("label", "kit"), CONTAINERS, ids=lambda word: word)
def test_every_tensor_of_an_official_file_arrives_in_the_network(shared, tmp_path, label, kit):
    state = official(shared / "parity" / kit)
    torch.save(CONTAINERS[label, kit](state), tmp_path / "official.pth")
    backbone = models.build(label, str(tmp_path / "official.pth"))
    unused = backbone.card.checkpoint.ignore
    expected = backbone.convert({name: value for name, value in state.items() if not name.startswith(unused)})
    found = backbone.state_dict()
    assert set(found) == set(expected)
    for name, value in found.items():
        assert torch.equal(value, expected[name].to(value.dtype)), name
    same = [name for name in found if name in state and not name.endswith("index")]
    assert len(same) > len(found) / 2
    assert all(torch.equal(found[name], state[name].to(found[name].dtype)) for name in same)


@pytest.mark.parametrize(
    ("label", "kit"), [("deo", "dinov2"), ("deo", "deo_vit"), ("dinov2", "dinov3"), ("dinov3", "deo")]
)
def test_the_file_of_another_model_is_refused_in_one_sentence(shared, tmp_path, label, kit):
    torch.save(official(shared / "parity" / kit), tmp_path / "other.pth")
    with pytest.raises(UserError) as caught:
        models.build(label, str(tmp_path / "other.pth"))
    assert str(caught.value).startswith(f"{tmp_path / 'other.pth'}: ")
    assert "\n" not in str(caught.value)


def test_the_released_deo_file_without_a_container_is_read_too(shared, tmp_path):
    state = official(shared / "parity" / "deo_w7")
    torch.save(state, tmp_path / "released.pth")
    backbone = models.build("deo", str(tmp_path / "released.pth"))
    assert torch.equal(backbone.get_parameter("norm.bias"), state["norm.bias"])


def test_a_model_without_weights_is_built_as_it_is():
    assert models.build("imagestats").weights_digest == models.build("imagestats", "random").weights_digest == "none"
