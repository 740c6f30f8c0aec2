"""X-STARS pretraining: what is trained in which form, what the continual mode sees, and the way back into the adapter."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import models
from models import mae, scalemae
from models.common.backbone import Backbone, Batch
from models.common.card import Card
from models.common.errors import UserError
from models.pretraining.builder import Progress
from models.pretraining.xstars import XstarsPretraining, encode
from models.pretraining.xstars_recipe import XstarsRecipe, continual, recipe
from models.pretraining.xstars_views import normalised

START = Progress(step=0, total=10, epoch_steps=5)
VIT = {"architecture": "vit", "width": 64, "heads": 1, "depth": 4, "patch": 8, "input_size": 32, "local_size": 16}
HEADS = {"local_crops": 2, "prototypes": 48, "head_width": 32, "bottleneck": 16, "projection_width": 24, "batch": 4}
TO_SPOT = continual("sentinel", "spot")


def small(form: str = "paper", **changes: object) -> XstarsRecipe:
    return recipe("s2-ls", form, **(VIT | HEADS | changes))


def built(settings: XstarsRecipe, initial: Backbone | None = None, seed: int = 0) -> XstarsPretraining:
    torch.manual_seed(seed)
    return XstarsPretraining(settings, initial)


def start(settings: XstarsRecipe) -> Backbone:
    """Weights to go on from: those of another training of the same network."""
    return built(replace(settings, mode="scratch", source="", target="", msad="off"), seed=9).student.backbone


def views(method: XstarsPretraining, images: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """A stacked batch of scenes that the sensors show in different light and at different sizes."""
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.rand(images, 3, 40, 40, generator=generator)
    stacked: list[dict[str, Tensor]] = []
    for scene in scenes:
        sample = {
            name: (scene * 0.6 + 0.1 * number)[:, : 40 - 4 * number]
            for number, name in enumerate(method.recipe.sensors)
        }
        stacked.append(method.views(sample, generator))
    return {name: torch.stack([one[name] for one in stacked]) for name in stacked[0]}


def gradients(method: XstarsPretraining, batch: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """Gradients of the named losses (all without names) by parameter, of those that have any."""
    torch.manual_seed(3)  # drop path and dropout
    losses = method(batch, START)
    torch.stack([losses[name] for name in names or losses]).sum().backward()
    return {name: weights.grad for name, weights in method.named_parameters() if weights.grad is not None}


def test_as_released_the_alignment_is_a_constant_and_the_gradients_are_those_of_dino_alone():
    """The release averages numbers, not tensors with a graph: from scratch it is DINO on several sensors."""
    method, dino = built(small("released")), built(small("released", msad="off"))
    dino.load_state_dict(method.state_dict(), strict=False)
    batch = views(method)
    losses = method(batch, START)
    assert losses["msad"].item() > 0
    assert not losses["msad"].requires_grad
    ours, theirs = gradients(method, batch), gradients(dino, batch)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(weights.grad is None for weights in method.projectors.parameters())
    trained = {name for group in method.parameter_groups() for name, _ in group.parameters}
    assert trained == set(theirs)
    assert not any(name.startswith("projectors.") for name in trained)


@pytest.mark.parametrize("settings", [small("paper"), small("released", msad_gradient=True)], ids=["paper", "mended"])
def test_where_gradients_flow_the_alignment_trains_backbone_and_projectors(settings: XstarsRecipe):
    method = built(settings)
    found = gradients(method, views(method), "msad")
    used = {name.split(".")[0] for name in found}
    assert used == {"student", "projectors"}
    assert not any(name.startswith("student.head.") for name in found)
    untouched = {name for name, _ in method.student.backbone.named_parameters(prefix="student.backbone")} - set(found)
    assert untouched == set()
    # A LayerNorm's own scale and shift may cancel; of each kind of weight something must move.
    assert all(
        any(found[name].abs().max() > 0 for name in found if part in name) for part in ("backbone", "projectors")
    )
    trained = {name for group in method.parameter_groups() for name, _ in group.parameters}
    assert trained >= {name for name in found if name.startswith("projectors.")}


def test_lambda_scales_the_alignment_and_nothing_else():
    once, thrice = (built(small(msad_weight=weight, drop_path=0.0)) for weight in (0.1, 0.3))
    batch = views(once)
    first, second = once(batch, START), thrice(batch, START)
    assert torch.equal(first["dino"], second["dino"])
    torch.testing.assert_close(second["msad"], 3 * first["msad"])


def test_a_few_steps_pull_the_sensors_together():
    method = built(small(msad_weight=1.0, drop_path=0.0))
    batch = views(method, images=8)
    optimiser = torch.optim.Adam(
        [weights for group in method.parameter_groups() for _, weights in group.parameters], 1e-3
    )
    values = []
    for step in range(25):
        losses = method(batch, Progress(step, 25, 25))
        optimiser.zero_grad()
        losses["msad"].backward()
        optimiser.step()
        values.append(losses["msad"].item())
    assert values[-1] < 0.8 * values[0]


def test_three_sensors_are_averaged_in_the_paper_and_summed_in_the_code():
    settings = small(sensors=("sentinel", "landsat", "spot"), drop_path=0.0)
    method = built(settings).eval()
    batch = views(method)
    mean = method.alignment(batch)
    method.recipe = replace(settings, pair_reduction="sum")
    torch.testing.assert_close(method.alignment(batch), 3 * mean)


def test_groups_align_each_part_of_the_batch_by_itself():
    method = built(small()).eval()
    batch = views(method)
    halves = [
        method.alignment({name: value[part] for name, value in batch.items()}) for part in (slice(2), slice(2, None))
    ]
    method.recipe = replace(method.recipe, groups=2)
    torch.testing.assert_close(method.alignment(batch), torch.stack(halves).mean())


def test_patchwise_takes_all_tokens_and_else_the_global_one():
    method = built(small()).eval()
    images = views(method)["scene.landsat"]
    tokens = method.tokens_of(method.student.backbone, images)
    assert tokens.shape == (17, 4, 64)  # 4 x 4 patches and the class token
    method.recipe = replace(method.recipe, patchwise=False)
    torch.testing.assert_close(method.tokens_of(method.student.backbone, images), tokens[:1])


def test_weights_are_grouped_by_decay_and_the_last_layer_waits_an_epoch():
    method = built(small())
    decayed, bare, last = method.parameter_groups()
    assert (decayed.decay, bare.decay, last.decay) == (True, False, True)
    assert (decayed.frozen_epochs, bare.frozen_epochs, last.frozen_epochs) == (0, 0, 1)
    assert [name for name, _ in last.parameters] == ["student.head.last_layer.weight_v"]
    assert all(weights.ndim > 1 for _, weights in decayed.parameters)
    assert all(name.endswith(".bias") or "norm" in name for name, _ in bare.parameters)
    grouped = [name for group in (decayed, bare, last) for name, _ in group.parameters]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {name for name, weights in method.named_parameters() if weights.requires_grad}
    assert not any(name.startswith("teacher.") for name in grouped)


def test_the_teacher_starts_as_the_student_and_follows_it_after_each_step():
    method = built(small())
    student, teacher = method.student.state_dict(), method.teacher.state_dict()
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    method(views(method), START)
    with torch.no_grad():
        for weights in method.student.parameters():
            weights.add_(1.0)
    before = {name: value.clone() for name, value in teacher.items()}
    method.after_step(Progress(step=5, total=10, epoch_steps=5))  # half way: 0.998
    for name, value in method.teacher.state_dict().items():
        torch.testing.assert_close(value, 0.998 * before[name] + 0.002 * student[name])
    assert method.dino.center.abs().max() > 0


def test_only_the_student_has_drop_path_and_it_rises_to_the_rate():
    method = built(small(drop_path=0.3))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in method.student.backbone.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all(isinstance(block.drop_path1, nn.Identity) for block in method.teacher.backbone.blocks)


def saved(method: XstarsPretraining, tmp_path: Path) -> str:
    torch.save(method.checkpoint(), tmp_path / "checkpoint.pth")
    return str(tmp_path / "checkpoint.pth")


NETWORKS = {"vit": VIT, "resnet50": {"architecture": "resnet50", "input_size": 64, "local_size": 32}}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_checkpoint_goes_back_into_the_adapter_which_computes_what_the_teacher_does(network: str, tmp_path: Path):
    method = built(recipe("s2-ls", **(HEADS | NETWORKS[network])))
    gradients(method, views(method))
    with torch.no_grad():
        for weights in method.student.parameters():
            weights.sub_(1e-2 * (weights.grad if weights.grad is not None else 0))
    method.after_step(Progress(step=0, total=10, epoch_steps=10))
    model = models.build(method.recipe.adapter, saved(method, tmp_path))
    images = torch.rand(2, 3, 64, 64)
    inputs = normalised(images, method.recipe.joint())
    found = model(Batch({"optical": inputs}, "rgb"))
    torch.testing.assert_close(found.pooled, method.probe_features(images, "landsat"))
    with torch.no_grad():
        tokens, vector = encode(method.teacher.eval().backbone, inputs)
        torch.testing.assert_close(found.pooled, vector)
        theirs, _ = encode(method.student.eval().backbone, inputs)
    assert not torch.allclose(tokens, theirs, atol=1e-6)
    content = method.checkpoint()
    del content["teacher"]
    torch.save(content, tmp_path / "student.pth")
    other = models.build(method.recipe.adapter, str(tmp_path / "student.pth"))
    with torch.no_grad():
        torch.testing.assert_close(encode(other, inputs)[0], theirs)


def test_a_network_of_a_named_size_is_read_by_its_variant_and_by_the_free_one(tmp_path: Path):
    method = built(recipe("table2-no-msad", **HEADS))
    path = saved(method, tmp_path)
    images = torch.rand(1, 3, 64, 64)
    batch = Batch({"optical": normalised(images, method.recipe.joint())}, "rgb")
    for label in (method.recipe.adapter, "xstars:vit"):
        torch.testing.assert_close(models.build(label, path)(batch).pooled, method.probe_features(images, "sentinel"))
    with pytest.raises(UserError, match="width 192 and 12 blocks; xstars has 1024 and 24"):
        models.build("xstars", path)


def test_the_resnet_gives_49_tokens_at_224_pixels_and_trains_with_msad():
    method = built(recipe("s2-ls-resnet50", **(HEADS | {"local_size": 32, "input_size": 64})))
    with torch.no_grad():
        tokens, vector = encode(method.teacher.backbone, torch.rand(2, 3, 224, 224))
    assert tokens.shape == (2, 49, 2048)
    torch.testing.assert_close(tokens.mean(dim=1), vector)
    found = gradients(method, views(method, images=2), "msad")
    assert found["student.backbone.conv1.weight"].abs().max() > 0


def test_the_probe_leaves_modes_and_gradients_as_they_are():
    method = built(small(crop_statistics="sensor"))
    images = torch.rand(2, 3, 32, 32)
    first = method.probe_features(images, "sentinel")
    assert first.shape == (2, 64)
    assert not first.requires_grad
    assert method.teacher.backbone.training
    assert not torch.allclose(first, method.probe_features(images, "landsat"))


def test_the_continual_mode_starts_three_networks_from_the_same_weights():
    settings = small(**TO_SPOT)
    initial = start(settings)
    method = built(settings, initial)
    assert method.domain_teacher is not None
    for network in (method.student.backbone, method.teacher.backbone, method.domain_teacher):
        assert all(torch.equal(value, initial.state_dict()[name]) for name, value in network.state_dict().items())
    assert not any(weights.requires_grad for weights in method.domain_teacher.parameters())
    before = {name: value.clone() for name, value in method.domain_teacher.state_dict().items()}
    gradients(method, views(method))
    method.after_step(START)
    assert all(torch.equal(before[name], value) for name, value in method.domain_teacher.state_dict().items())
    with pytest.raises(UserError, match="goes on from weights"):
        XstarsPretraining(settings)


@pytest.mark.parametrize(
    ("sees", "domain", "student"), [("source", "sentinel", "spot"), ("target", "spot", "sentinel")]
)
def test_the_domain_teacher_sees_one_sensor_and_the_student_the_other(sees: str, domain: str, student: str):
    settings = small(**TO_SPOT, domain_teacher_sees=sees)
    method = built(settings, start(settings)).eval()
    batch = views(method)
    tokens = method.scene_tokens(batch)
    for key, sensor in (("domain", domain), ("student", student)):
        changed = method.scene_tokens(batch | {f"scene.{sensor}": batch[f"scene.{sensor}"].flip(0)})
        torch.testing.assert_close(changed[key], tokens[key].flip(1))
        other = "student" if key == "domain" else "domain"
        assert torch.equal(changed[other], tokens[other])


def test_the_domain_teacher_is_still_unless_it_is_left_in_training_as_released():
    for drop_path, still in ((False, True), (True, False)):
        settings = small(**TO_SPOT, drop_path=0.5, domain_teacher_drop_path=drop_path)
        method = built(settings, start(settings)).train()
        batch = views(method, images=8)
        first, second = (method.scene_tokens(batch)["domain"] for _ in range(2))
        assert torch.equal(first, second) is still
        method.eval()
        assert torch.equal(method.scene_tokens(batch)["domain"], method.scene_tokens(batch)["domain"])


def test_a_sensor_is_continued_to_itself_as_a_control():
    settings = small(**continual("sentinel", "sentinel"))
    method = built(settings, start(settings))
    losses = method(views(method), START)
    assert set(losses) == {"dino", "msad"}
    assert losses["msad"].requires_grad


def miniature(card: Card) -> Card:
    """The card of an MAE or Scale-MAE of four blocks of width 64."""
    build = {**card.build, "depth": 4, "heads": 1}
    return replace(card, width=64, channels=(64,) * 4, blocks=(0, 1, 2, 3), build=build)


@pytest.mark.parametrize("module", [mae, scalemae], ids=["mae", "scalemae"])
def test_weights_of_another_vit_give_its_features_at_its_size(module):
    torch.manual_seed(4)
    other = module.build(miniature(module.CARD.choose_variant("large")), {}).freeze()
    settings = small(**TO_SPOT, patch=16, input_size=224, local_size=96)
    method = built(settings, other)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        _, vector = encode(method.student.eval().backbone, images)
    torch.testing.assert_close(vector, other(Batch({"optical": images}, "rgb")).pooled)
    assert method.student.backbone.get_parameter("pos_embed").requires_grad
    assert not any(weights.requires_grad for weights in other.parameters())


def test_weights_of_another_network_are_refused():
    settings = small(**TO_SPOT)
    with pytest.raises(UserError, match="has 2 attention heads, the network to be trained 1"):
        XstarsPretraining(settings, start(replace(settings, width=128, heads=2)))
    with pytest.raises(UserError, match="the weights do not fit xstars:vit"):
        XstarsPretraining(settings, start(replace(settings, depth=5)))
    with pytest.raises(UserError, match="the weights of xstars:resnet50 are no ViT's, and xstars:vit is one"):
        XstarsPretraining(settings, models.build("xstars:resnet50", "random"))
