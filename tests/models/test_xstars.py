"""X-STARS: training files of DINO v1, the paper's ResNet-50, and what is refused."""

import argparse
from pathlib import Path

import pytest
import torch
from timm.layers.attention import Attention
from torch import Tensor
from torchvision.models import resnet18, resnet50, resnet101
from torchvision.models.feature_extraction import create_feature_extractor

import models
from harness import verify
from models import xstars
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.bands import compile_transform
from models.common.card import ZScore
from models.common.errors import UserError
from models.common.spectral import Band
from models.common.weights import module_digest, parameters_on_meta

SLIM = Path(__file__).resolve().parents[1] / "parity"


def build(label: str, shapes: dict[str, tuple[int, ...]]) -> Backbone:
    with parameters_on_meta():
        return xstars.build(models.card(label), shapes)


def vit(label: str = "xstars:tiny") -> dict[str, tuple[int, ...]]:
    return state_shapes(build(label, {}).state_dict())


def random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}


def training_file(teacher: dict[str, Tensor], student: dict[str, Tensor]) -> dict[str, object]:
    """What DINO's training writes; the student alone is wrapped for several devices, and both have the head."""
    head = {"head.mlp.0.weight": torch.zeros(4, 4), "head.last_layer.weight_g": torch.ones(4, 1)}
    return {
        "student": {f"module.{name}": value for name, value in (_backbone(student) | head).items()},
        "teacher": _backbone(teacher) | head,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 4)},
        "fp16_scaler": {"scale": 1.0},
    }


def _backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"backbone.{name}": value for name, value in state.items()}


def test_a_training_file_gives_its_teacher_and_its_student_where_it_has_none(tmp_path: Path):
    teacher, student = random(vit(), seed=1), random(vit(), seed=2)
    file = training_file(teacher, student)
    torch.save(file, tmp_path / "checkpoint.pth")
    model = models.build("xstars:tiny", str(tmp_path / "checkpoint.pth"))
    assert {name: torch.equal(value, teacher[name]) for name, value in model.state_dict().items()} == dict.fromkeys(
        teacher, True
    )
    del file["teacher"]
    torch.save(file, tmp_path / "student.pth")
    other = models.build("xstars:tiny", str(tmp_path / "student.pth"))
    assert torch.equal(other.state_dict()["pos_embed"], student["pos_embed"])
    assert module_digest(other) != module_digest(model)


def test_a_training_file_of_the_resnet_gives_torchvisions_features(tmp_path: Path):
    torch.manual_seed(0)
    official = resnet50(weights=None).eval()
    with torch.no_grad():
        for name, buffer in official.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    torch.save(training_file(official.state_dict(), official.state_dict()), tmp_path / "checkpoint.pth")
    model = models.build("xstars:resnet50", str(tmp_path / "checkpoint.pth"))
    image = torch.randn(2, 3, 75, 52)
    layers = [f"layer{number}" for number in (1, 2, 3, 4)]
    with torch.no_grad():
        theirs = create_feature_extractor(official, [*layers, "flatten"])(image)
    ours = model(Batch({"optical": image}, "rgb"))
    for stage, layer in zip(ours.stages, layers, strict=True):
        torch.testing.assert_close(stage, theirs[layer])
    torch.testing.assert_close(ours.pooled, theirs["flatten"])


def sized(width: int, depth: int, patch: int, grid: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a free ViT."""
    card = xstars.sized(models.card("xstars:vit"), width, depth, patch, grid)
    with parameters_on_meta():
        return state_shapes(xstars.build(card, {}).state_dict())


@pytest.mark.parametrize(
    ("width", "depth", "patch", "grid", "blocks"),
    [(128, 6, 8, 4, (0, 2, 3, 5)), (64, 4, 4, 8, (0, 1, 2, 3)), (192, 12, 16, 14, (3, 5, 8, 11))],
)
def test_the_free_vit_reads_its_size_off_the_checkpoint(width: int, depth: int, patch: int, grid: int, blocks: tuple):
    model = build("xstars:vit", sized(width, depth, patch, grid))
    card = model.card
    assert (card.width, card.channels, card.strides, card.blocks) == (width, (width,) * 4, (patch,) * 4, blocks)
    assert (card.inputs[0].size, card.inputs[0].multiple) == (patch * grid, patch)
    heads = {module.num_heads for module in model.modules() if isinstance(module, Attention)}
    assert heads == {width // 64}
    assert model.get_parameter("pos_embed").shape == (1, 1 + grid**2, width)


def test_the_free_vit_computes_what_the_authors_compute_at_a_size_of_theirs():
    assert verify.run_kit(SLIM / "xstars_tiny", "xstars:vit").passed


REFUSED = {
    "another size": ("xstars:base", vit, "width 192 and 12 blocks; xstars:base has 768 and 12"),
    "patch 8": (
        "xstars:tiny",
        lambda: vit() | {"patch_embed.proj.weight": (192, 3, 8, 8)},
        "patch size 8; xstars:tiny has 16",
    ),
    "half a head": (
        "xstars:vit",
        lambda: {key: tuple(96 if side == 64 else side for side in shape) for key, shape in sized(64, 4, 8, 4).items()},
        "width 96 and 4 blocks; xstars:vit takes widths divisible by 64",
    ),
    "fewer blocks than stages": (
        "xstars:vit",
        lambda: {key: shape for key, shape in sized(64, 4, 8, 4).items() if not key.startswith("blocks.3.")},
        "width 64 and 3 blocks; .* at least 4 blocks",
    ),
    "the ResNet for the free ViT": (
        "xstars:vit",
        lambda: state_shapes(resnet50(weights=None).state_dict()),
        "no patch_embed.proj.weight or cls_token; it looks like a ResNet",
    ),
    "no positions": ("xstars:tiny", lambda: vit() | {"pos_embed": (1, 1, 192)}, "no position table"),
    "the ViT for the ResNet": ("xstars:resnet50", vit, "no conv1.weight; it looks like another ViT"),
    "the ResNet for the ViT": (
        "xstars",
        lambda: state_shapes(resnet50(weights=None).state_dict()),
        "no patch_embed.proj.weight or cls_token; it looks like a ResNet",
    ),
    "a ResNet-18": (
        "xstars:resnet50",
        lambda: state_shapes(resnet18(weights=None).state_dict()),
        r"ResNet of \(2, 2, 2, 2\) basic blocks",
    ),
    "a ResNet-101": (
        "xstars:resnet50",
        lambda: state_shapes(resnet101(weights=None).state_dict()),
        r"ResNet of \(3, 4, 23, 3\) bottleneck blocks; xstars:resnet50 has \(3, 4, 6, 3\)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    label, shapes, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(label, shapes())


@pytest.mark.parametrize("unit", ["uint8", "dn"])
def test_the_data_sets_own_statistics_stand_in_for_the_undocumented_ones_in_its_own_unit(unit: str):
    names = ("S2:B04", "S2:B03", "S2:B02")
    bands = [Band(name, name, unit, mean=1000.0 + number, std=200.0) for number, name in enumerate(names)]
    transform = compile_transform(models.card("xstars"), bands)
    assert transform.steps == (ZScore((1000.0, 1001.0, 1002.0), (200.0, 200.0, 200.0)),)
    assert [channel.rendering for channel in transform.channels] == ["", "", ""]
    assert "undocumented" in transform.notes[0]
    assert transform(torch.full((1, 3, 16, 16), 1200.0))[0, 0, 0, 0] == 1.0


def test_positions_resized_by_size_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    """Scale factors that carry DINO's offset give other numbers than the size they lead to."""

    def by_size(table: Tensor, size: tuple[int, int], patch: int) -> Tensor:
        stored = table[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
        grid = (size[0] // patch, size[1] // patch)
        found = torch.nn.functional.interpolate(stored, size=grid, mode="bicubic")
        return torch.cat([table[:, :1], found.flatten(2).transpose(1, 2)], dim=1)

    assert verify.run_kit(SLIM / "xstars_tiny").passed
    monkeypatch.setattr("models.networks.vit.resize_positions", by_size)
    outcome = verify.run_kit(SLIM / "xstars_tiny")
    assert outcome.worst.startswith("s256_pos500/")
    assert outcome.error > 100 * outcome.limit
