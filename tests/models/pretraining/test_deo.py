"""DEO's pretraining: the total against the published formula, what is trained, and a checkpoint that `run` takes."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

import models
from models import radio
from models.common.backbone import Batch, state_shapes
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import Band
from models.common.weights import parameters_on_meta, state_dict
from models.deo import BANDS, HEADS
from models.pretraining.builder import Progress
from models.pretraining.deo import DeoPretraining
from models.pretraining.deo_recipe import PRESETS, DeoRecipe, recipe
from models.pretraining.deo_student import DeoStudent
from models.pretraining.teachers import OpticalTeacher

START = Progress(0, 100, 10)
SIZES = {
    "global_size": 32,
    "local_size": 16,
    "local_views": 3,
    "head_hidden": 32,
    "head_width": 16,
    "groups": 2,
    "batch": 4,
}


def small(preset: str = "full", form: str = "paper", **changes: Any) -> DeoRecipe:
    """The small student at sizes for seconds, without stochastic depth."""
    teacher = {} if PRESETS[preset]["distill"] == "none" else {"teacher": "radio"}
    return recipe(preset, form, "small", **{**SIZES, **teacher, "rgb_aug": False, "drop_path": 0.0, **changes})


def optical() -> OpticalTeacher:
    """RADIO's network, narrow: its vector is 96 wide, its maps 32."""
    card = models.card("radio")
    build = {**card.build, "width": 32, "heads": 2, "grid": 4}
    torch.manual_seed(7)
    return OpticalTeacher(radio.build(replace(card, width=96, channels=(32,) * 4, build=build), {}))


def pretraining(made: DeoRecipe, seed: int = 0) -> DeoPretraining:
    teacher = optical() if made.distils else None
    torch.manual_seed(seed)
    return DeoPretraining(made, teacher)


def batch(made: DeoPretraining, images: int = 4) -> dict[str, Tensor]:
    """Views of noise, stacked as a loader does."""
    generator = torch.Generator().manual_seed(1)
    samples = [{"ms": 3000 * torch.rand(10, 40, 48, generator=generator)} for _ in range(images)]
    views = [made.views(sample, generator) for sample in samples]
    return {name: torch.stack([each[name] for each in views]) for name in views[0]}


def reference(method: DeoPretraining, views: dict[str, Tensor]) -> Tensor:
    """The total as paper and release have it, view by view, with plain loops and a determinant."""
    made, student = method.recipe, method.student
    kinds = [("global", view) for view in range(2)] + [("local", view) for view in range(3)]

    def rgb(kind: str, view: int) -> Tensor:
        return views.get(f"{kind}_rgb", views[f"{kind}_ms"][:, :, :3])[:, view]

    def across(teacher: list[Tensor], vectors: list[Tensor]) -> Tensor:
        pairs = [(t, v) for u, t in enumerate(teacher) for number, v in enumerate(vectors) if number != u]
        return torch.stack([cosine_similarity(t, v).mean() for t, v in pairs]).mean()

    ms = [student.backbone.through(views[f"{kind}_ms"][:, view]) for kind, view in kinds]
    s = [student.head_ms(each.vector) for each in ms]
    t = [method.teacher(views["global_ms"][:, view]) for view in range(2)]
    images, width = s[0].shape
    rates = []
    for u in range(2):
        for rows in ((s[u] + t[u]) / 2).chunk(made.groups):
            gram = torch.eye(width) + width / (images * made.eps) * rows.T @ rows
            rates.append(torch.linalg.slogdet(gram).logabsdet / 2)
    total = -across(t, s) - (width + images) / (width * images) * sum(rates) / len(rates)
    if method.optical is None:
        return total
    o = [method.optical(rgb("global", view)) for view in range(2)]
    seen = [student.backbone.through(rgb(*kind)) for kind in kinds] if made.optical_path == "separate" else ms
    c_cls = across([each.vector for each in o], [student.cls_head(each.vector) for each in seen])
    if made.distill == "cls":
        return total - c_cls
    late, mid = (
        [interpolate(head(getattr(each, name)).permute(0, 3, 1, 2), size=(2, 2), mode="bilinear") for each in seen[:2]]
        for name, head in (("late", student.patch_head_late), ("mid", student.patch_head_mid))
    )
    c_late = torch.stack([cosine_similarity(late[u], o[u].late, dim=1).mean() for u in range(2)]).mean()
    c_mid = torch.stack([cosine_similarity(mid[u], o[u].mid, dim=1).mean() for u in range(2)]).mean()
    if made.eps == 0.05:  # released: half of class plus mean of patches
        return total - (c_cls + (c_late + c_mid) / 2) / 2
    return total - (1.0 * c_cls + 0.5 * c_late + 0.5 * c_mid)  # paper, eq. 4


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_total_of_every_preset_is_the_published_formula(preset: str, form: str):
    aug = {"rgb_aug": PRESETS[preset]["rgb_aug"], "blur_kernel": 5, "teacher_drop_path": False}
    method = pretraining(small(preset, form, **aug))
    views = batch(method)
    losses = method(views, START)
    torch.testing.assert_close(sum(losses.values()), reference(method, views), rtol=1e-5, atol=1e-5)
    named = {"base-ms": [], "cls-shared": ["class"], "separate": ["class"]}
    assert list(losses)[2:] == named.get(preset, ["class", "patch_late", "patch_mid"])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_trained_parameter_gets_a_gradient_and_no_other(preset: str):
    """So that DistributedDataParallel has nothing to wait for, and no weight decays that is never used."""
    method = pretraining(small(preset))
    sum(method(batch(method), START).values(), torch.zeros(())).backward()
    groups = method.parameter_groups()
    grouped = [parameter for group in groups for _, parameter in group.parameters]
    assert len({id(parameter) for parameter in grouped}) == len(grouped)
    with_gradient = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert {name for group in groups for name, _ in group.parameters} == with_gradient
    assert all(name.startswith("student.") for name in with_gradient)
    assert any("conv_rgb" in name for name in with_gradient) == (preset not in ("base-ms", "cls-shared"))
    decayed = {name: parameter.ndim for name, parameter in groups[0].parameters}
    assert min(decayed.values()) >= 2
    assert all(name.endswith("bias") or parameter.ndim == 1 for name, parameter in groups[1].parameters)


def test_the_teacher_starts_as_a_copy_has_no_rgb_stem_and_follows_along_a_cosine():
    method = pretraining(small(ema=(0.996, 1.0)))
    own, source = dict(method.teacher.named_parameters()), dict(method.student.named_parameters())
    assert {name for name in source if name.startswith(("backbone.", "head_ms."))} - own.keys() == {
        f"backbone.conv_rgb.{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")
    }
    assert all(torch.equal(value, source[name]) for name, value in own.items())
    before = {name: value.clone() for name, value in own.items()}
    with torch.no_grad():
        for value in source.values():
            value.add_(1.0)
    method.after_step(Progress(25, 100, 10))
    momentum = 1 - (1 - 0.996) * (cos(pi * 0.25) + 1) / 2
    for name, value in own.items():
        torch.testing.assert_close(value, before[name] + (1 - momentum), rtol=0, atol=1e-6)
    assert method.momentum(START) == 0.996
    assert not any(value.requires_grad for value in own.values())


@pytest.mark.parametrize(("form", "drops"), [("paper", False), ("released", True)])
def test_stochastic_depth_is_in_the_teacher_only_in_the_release(form: str, drops: bool):
    method = pretraining(small("base-ms", form, drop_path=0.5))
    view = batch(method)["global_ms"][:, 0]
    method.eval().train()
    with torch.no_grad():
        assert torch.equal(method.teacher(view), method.teacher(view)) != drops
        assert not torch.equal(
            method.student.backbone.through(view).vector, method.student.backbone.through(view).vector
        )


def test_the_optical_teacher_is_no_part_of_a_state_that_is_saved_and_stays_when_it_is_loaded():
    method, other = pretraining(small()), pretraining(small(), seed=5)
    state = method.state_dict()
    assert {name.split(".")[0] for name in state} == {"student", "teacher"}
    kept = {name: value.clone() for name, value in other.get_submodule("optical").state_dict().items()}
    other.load_state_dict(state, strict=True)
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in other.get_submodule("optical").state_dict().items())
    with pytest.raises(RuntimeError, match=r"student.head_ms.mlp.0.weight"):
        other.load_state_dict({key: value for key, value in state.items() if key != "student.head_ms.mlp.0.weight"})


def test_a_few_steps_lower_the_total():
    method = pretraining(small("full", batch=8))
    optimiser = torch.optim.AdamW([parameter for parameter in method.parameters() if parameter.requires_grad], lr=1e-3)
    views = batch(method, images=8)
    totals = []
    for step in range(12):
        total = sum(method(views, Progress(step, 12, 4)).values(), torch.zeros(()))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        method.after_step(Progress(step, 12, 4))
        totals.append(total.item())
    assert totals[-1] < totals[0] - 0.5


def test_under_autocast_the_losses_are_float32_and_close():
    method = pretraining(small())
    views = batch(method)
    exact = method(views, START)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = method(views, START)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], value, rtol=0.05, atol=0.05)


STUDENTS: dict[str, tuple[str, Callable[[], DeoRecipe]]] = {
    "a small Swin": ("deo", lambda: small("full", width=16, depths=(1, 2, 1, 1), heads=(1, 4, 2, 8), window=3)),
    "a Swin-T": ("deo", lambda: small("full", student="swin_t", window=7)),
    "a Swin of window 12": ("deo", lambda: small("base-ms", window=12)),
    "a ViT-B/16": ("deo:vit", lambda: small("patch", student="vit_b", patch=16)),
}


@pytest.mark.parametrize("what", STUDENTS)
def test_the_adapter_computes_the_students_features_from_its_checkpoint(what: str, tmp_path: Path):
    label, made = STUDENTS[what]
    method = pretraining(made())
    torch.save(method.checkpoint(), tmp_path / "checkpoint.pth")
    adapter = models.build(label, str(tmp_path / "checkpoint.pth"))
    generator = torch.Generator().manual_seed(2)
    images = (4000 * torch.rand(2, 10, 48, 32, generator=generator)).round()
    transform = compile_transform(adapter.card, [Band(name, name, "dn") for name in BANDS], input_size="native")
    batch = transform.batch(images, gsd=10.0)
    features = adapter(batch)
    torch.testing.assert_close(features.pooled, method.probe_features(images), rtol=1e-5, atol=1e-5)
    assert features.pooled.shape == (2, adapter.card.width)
    assert tuple(stage.shape[1] for stage in features.stages) == adapter.card.channels
    student = method.student.backbone.eval()
    for bands, mode in ((10, "ms"), (3, "rgb")):
        image = batch.images["optical"][:, :bands]
        with torch.no_grad():
            theirs = student.through(image)
        late = theirs.late.permute(0, 3, 1, 2)
        if method.student.trains_rgb or mode == "ms":
            torch.testing.assert_close(adapter(Batch({"optical": image}, mode)).stages[3], late, rtol=1e-5, atol=1e-5)


def test_the_probe_leaves_the_student_in_train_mode():
    method = pretraining(small("base-ms", drop_path=0.5))
    images = 3000 * torch.rand(2, 10, 32, 32)
    assert torch.equal(method.probe_features(images), method.probe_features(images))
    assert method.student.backbone.training


def test_an_rgb_stem_that_was_never_trained_sees_rgb_as_ten_bands_at_their_mean(tmp_path: Path):
    torch.save(pretraining(small("base-ms")).checkpoint(), tmp_path / "checkpoint.pth")
    adapter = models.build("deo", str(tmp_path / "checkpoint.pth"))
    rgb = torch.randn(2, 3, 32, 32)
    ten = torch.cat([rgb, torch.zeros(2, 7, 32, 32)], dim=1)
    torch.testing.assert_close(
        adapter(Batch({"optical": rgb}, "rgb")).pooled, adapter(Batch({"optical": ten}, "ms")).pooled
    )


KITS = {"swin_b": "deo", "vit_b": "deo_vit"}


@pytest.mark.parametrize("student", KITS)
def test_the_checkpoint_has_the_keys_and_shapes_of_the_release(student: str):
    """The key lists of the kits are those of the official student, prefixes and heads aside."""
    manifest = json.loads(
        (Path(__file__).resolve().parents[2] / "parity" / KITS[student] / "manifest.json").read_text()
    )
    with parameters_on_meta():
        made = recipe("full", "paper", "main", student=student)
        official = state_shapes(DeoStudent(made, 1024, 1024).official())
    heads = {name.split(".")[0] for name in official if name.startswith(HEADS)}
    assert heads == {"head_ms", "cls_head", "patch_head_late", "patch_head_mid"}
    assert official["head_ms.mlp.4.weight"] == (256, 2048)
    assert official["cls_head.mlp.4.weight"] == official["patch_head_mid.mlp.4.weight"] == (1024, 2048)
    bare = state_shapes(
        state_dict(
            {"student": {key: torch.empty(shape) for key, shape in official.items()}}, models.card("deo").checkpoint
        )
    )
    assert bare == {key: tuple(shape) for key, shape, _ in manifest["keys"]}
    at_top = {name.split(".")[0] for name in official} - heads
    assert at_top == {
        "backbone",
        *(("conv_ms", "conv_rgb") if student == "swin_b" else ("patch_embed_ms", "patch_embed_rgb")),
    }


def test_the_release_crosses_the_patches_of_a_vit_and_the_paper_does_not():
    method = pretraining(small("patch", student="vit_b", patch=16, batch=2))
    views = batch(method, images=2)
    straight = method(views, START)
    method.recipe = replace(method.recipe, vit_patches="crossed")
    crossed = method(views, START)
    assert torch.equal(straight["class"], crossed["class"])
    assert not torch.isclose(straight["patch_late"], crossed["patch_late"])


def test_recipe_and_teacher_must_go_together():
    with pytest.raises(UserError, match=r"distill=cls\+patch needs the optical teacher radio"):
        DeoPretraining(small(), None)
    with pytest.raises(UserError, match="no use for an optical teacher"):
        DeoPretraining(small("base-ms"), optical())
    with pytest.raises(UserError, match="global_size must be a multiple of 16 pixels for radio, got 40"):
        DeoPretraining(small(global_size=40), optical())
