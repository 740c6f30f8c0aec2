"""SatDiFuser: files as DiffusionSat publishes them, noise per image, the fusers, and the full size of the network."""

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import models
from harness import verify
from models import satdifuser
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import band
from models.common.weights import locate, module_digest, parameters_on_meta
from models.networks import satdifuser as network
from models.networks.diffusion import UNet
from models.networks.satdifuser import SatDiFuser
from models.networks.satdifuser_fusers import WARM_UP, MixtureOfExperts
from models.parity import satdifuser as parity
from models.parity import synthetic

CARD = models.card("satdifuser")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "satdifuser_reduced"


@pytest.fixture(scope="module", name="model")
def random_model() -> SatDiFuser:
    backbone = models.build("satdifuser", "random")
    assert isinstance(backbone, SatDiFuser)
    return backbone


def images(number: int, size: tuple[int, int] = (64, 64)) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch({"optical": torch.rand(number, 3, *size, generator=generator) * 2 - 1}, "rgb")


# Files.


def older(name: str) -> str:
    """The name that files of the time of Stable Diffusion give to an entry of the VAE's attention."""
    for before, now in network.OLDER.items():
        name = name.replace(f"mid_block.attentions.0.{now}.", f"mid_block.attentions.0.{before}.")
    return name


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, model: SatDiFuser) -> Path:
    """The folder that DiffusionSat publishes, reduced: more networks than are needed, and more entries."""
    root = tmp_path_factory.mktemp("resolution256")
    unet, vae, text = (part.state_dict() for part in (model.unet, model.vae, model.text_encoder))
    for number in range(7):
        unet[f"metadata_embedding.{number}.linear_1.weight"] = torch.ones(128, 32)
    for folder, scale in (("checkpoint-150000/unet", 1.0), ("checkpoint-150000/unet_ema", 2.0), ("unet", 3.0)):
        (root / folder).mkdir(parents=True)
        state = {name: value * scale for name, value in unet.items()}
        torch.save(state, root / folder / "diffusion_pytorch_model.bin")
    (root / "vae").mkdir()
    vae = {older(name): value for name, value in vae.items()}
    vae["encoder.mid_block.attentions.0.query.weight"] = vae["encoder.mid_block.attentions.0.query.weight"][
        ..., None, None
    ]
    vae |= {"decoder.conv_in.weight": torch.ones(3), "post_quant_conv.bias": torch.ones(4)}
    save_file(
        {name: value.contiguous() for name, value in vae.items()}, root / "vae/diffusion_pytorch_model.safetensors"
    )
    (root / "text_encoder").mkdir()
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(text, root / "text_encoder/pytorch_model.bin")
    torch.save({"step": 150000}, root / "checkpoint-150000/optimizer.bin")
    (root / "model_index.json").write_text("{}")
    return root


def zipped(folder: Path, path: Path, top: str = "") -> Path:
    with ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, top + str(file.relative_to(folder)))
    return path


def test_the_folder_and_the_zip_that_are_published_are_read_strictly(
    published: Path, tmp_path: Path, model: SatDiFuser
):
    for path in (published, zipped(published, tmp_path / "pipeline.zip", top="finetune_sd21_256/")):
        loaded = models.build("satdifuser", str(path))
        assert module_digest(loaded) == module_digest(model)
        assert loaded.card == model.card


def test_a_folder_is_known_by_the_weights_in_it_and_by_nothing_else(published: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    (copy / "checkpoint-150000/optimizer.bin").unlink()
    digest = locate(CARD, str(copy), None).digest
    assert digest == locate(CARD, str(published), None).digest == models.build("satdifuser", str(copy)).weights_digest
    (copy / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"other")
    assert locate(CARD, str(copy), None).digest != digest


def test_the_official_zip_is_looked_for_in_the_cache(published: Path, tmp_path: Path):
    (tmp_path / "weights/satdifuser").mkdir(parents=True)
    zipped(published, tmp_path / "weights/satdifuser" / CARD.checkpoint.file)
    backbone = models.build("satdifuser", cache=tmp_path)
    assert backbone.weights_digest == locate(CARD, "official", tmp_path).digest


@pytest.mark.parametrize("missing", ["vae", "text_encoder", "checkpoint-150000/unet"])
def test_half_a_pipeline_is_refused(published: Path, tmp_path: Path, missing: str):
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    shutil.rmtree(copy / missing)
    for path in (copy, zipped(copy, tmp_path / "half.zip")):
        with pytest.raises(UserError, match=f"has no {missing} with diffusion_pytorch_model.safetensors or"):
            models.build("satdifuser", str(path))


def test_a_damaged_zip_is_told_in_one_sentence(published: Path, tmp_path: Path):
    whole = zipped(published, tmp_path / "whole.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.zip is damaged, incomplete or no PyTorch checkpoint"):
        models.build("satdifuser", str(tmp_path / "half.zip"))


def shapes_of(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    return state_shapes(backbone.state_dict())


CROSS = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
REFUSED = {
    "stable diffusion 1": (
        {CROSS: (1280, 768)},
        r"reads prompts of width 768; satdifuser has \(320, 640, 1280, 1280\)",
    ),
    "a wider unet": ({"unet.down_blocks.0.resnets.0.conv1.weight": (640, 640, 3, 3)}, r"widths \(640, 64, 128, 128\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_diffusion_model_is_refused(model: SatDiFuser, what: str):
    change, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        satdifuser.build(CARD, shapes_of(model) | change)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("down_blocks.0.resnets.0.conv1.weight", "looks like the UNet alone; wanted is the whole folder or zip"),
        ("model.diffusion_model.input_blocks.0.0.weight", "key layout of the original Stable Diffusion"),
        ("mixing_weights", "looks like a trained fuser"),
        ("head.weight", "no checkpoint of satdifuser"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Path, key: str, sentence: str):
    torch.save({key: torch.ones(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=sentence):
        models.build("satdifuser", str(tmp_path / "other.pth"))


# The full size.


def test_the_full_network_has_the_published_entries_and_the_card_counts_them(shared: Path):
    manifest = json.loads((shared / "parity/satdifuser/manifest.json").read_text())
    sections = {"unet": manifest["keys"]}
    sections |= {part: manifest["sections"][part]["keys"] for part in ("vae", "text_encoder")}
    published = {f"{part}.{name}": tuple(shape) for part, keys in sections.items() for name, shape, _ in keys}
    used = {name: shape for name, shape in published.items() if not name.startswith(CARD.checkpoint.ignore)}
    with parameters_on_meta():
        backbone = satdifuser.build(CARD, published)
    assert shapes_of(backbone) == used
    # The card speaks of the full size, and a full network leaves it as it is.
    assert backbone.card == CARD


@pytest.mark.slow
def test_the_full_size_kit_passes(shared: Path):
    outcome = verify.run_kit(shared / "parity" / "satdifuser")
    assert outcome.passed, outcome.line()


# Features.


def kit_case(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    manifest = json.loads((SLIM / "manifest.json").read_text())
    with np.load(SLIM / "golden.npz") as stored:
        arrays = {key.removeprefix(f"{name}/"): stored[key] for key in stored.files if key.startswith(f"{name}/")}
    return manifest | {"case": manifest["golden"]["cases"][name]}, arrays


def test_every_image_gets_the_noise_that_the_authors_give_to_their_first(model: SatDiFuser):
    kit, arrays = kit_case("vae")
    values = synthetic.state_dict([tuple(key) for key in kit["sections"]["vae"]["keys"]])
    state = {name: torch.from_numpy(value) for name, value in values.items() if name in model.vae.state_dict()}
    mine = models.build("satdifuser", "random")
    assert isinstance(mine, SatDiFuser)
    mine.vae.load_state_dict(state)
    image = torch.from_numpy(synthetic.image(kit["case"]["inputs"]["image"]))
    latents = mine.latents(image)
    theirs = torch.from_numpy(arrays["latents"])
    stored = latents[:, :: kit["case"]["arrays"]["vae/latents"]["channel_stride"]]
    torch.testing.assert_close(stored[0], theirs[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(stored[1], theirs[1], atol=1e-2)
    twice = mine.latents(image[[1, 1]])
    torch.testing.assert_close(twice[0], twice[1])
    torch.testing.assert_close(twice[0], latents[1], rtol=1e-4, atol=1e-5)


def test_stages_hold_the_kept_steps_from_clean_to_noisy_and_the_vector_their_mean(model: SatDiFuser):
    batch = images(2, (64, 128))
    features = model(batch)
    prompt = model.text_encoder(CARD.build["prompt"]).expand(2, -1, -1)
    kept = network.invert(model.unet, model.latents(batch.images["optical"]), prompt, (47, 45, 40))
    for number, stage in enumerate(features.stages):
        parts = stage.chunk(3, dim=1)
        for part, index in zip(parts, (47, 45, 40), strict=True):
            torch.testing.assert_close(part, kept[index][0][number])
    means = [torch.stack(stage.chunk(3, dim=1)).mean(dim=(0, 3, 4)) for stage in features.stages]
    torch.testing.assert_close(features.pooled, torch.cat(means, dim=1))
    assert features.pooled.shape == (2, sum(sum(widths) for widths in model.layers))


def test_sentinel_2_is_clipped_before_it_is_resized(shared: Path):
    del (
        shared
    )  # the full arrays are in the shared kit; the carried one has every channel of this small case's first image
    bands = [band(name, name, "dn") for name in ("S2:B02", "S2:B03", "S2:B04", "S2:B08")]
    transform = compile_transform(CARD, bands)
    assert transform.describe()[-1].startswith("resize to 256 x 256")
    patch = torch.zeros(1, 3, 2, 2)
    patch[..., 0] = 8190.0  # twice what is clipped to
    result = transform(patch)
    assert float(result.max()) == 1.0
    # Halfway between a clipped and a black pixel lies grey; clipping what was resized first would leave it white.
    assert result[0, 0, 0, 127:129].tolist() == pytest.approx([0.0, 0.0], abs=0.01)


# Fusers.


@pytest.mark.parametrize("kind", ["gw", "lw", "moe"])
def test_a_fuser_is_trained_on_features_of_a_frozen_network(model: SatDiFuser, kind: str):
    features = model(images(2))
    neck = model.neck(kind).train()
    before = module_digest(model)
    fused = neck(features.stages)
    assert [stage.shape[1:] for stage in fused.stages] == [(384, size, size) for size in (8, 4, 2, 1)]
    assert fused.pooled.shape == (2, 384)
    fused.pooled.square().sum().backward()
    assert all(parameter.grad is not None for parameter in neck.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert module_digest(model) == before


@pytest.mark.parametrize("kind", ["gw", "lw", "moe"])
def test_a_fuser_has_the_names_of_the_authors_decoder_without_its_head(model: SatDiFuser, kind: str):
    sections = json.loads((SLIM / "manifest.json").read_text())["sections"]
    theirs = {name: tuple(shape) for name, shape, _ in sections[f"decoder_{kind}"]["keys"]}
    head = {name for name in theirs if name.startswith("decoder_head.")}
    assert state_shapes(model.neck(kind).state_dict()) == {name: theirs[name] for name in theirs.keys() - head}


def test_gw_is_the_default_and_other_names_are_refused(model: SatDiFuser):
    assert type(model.neck()) is type(model.neck("gw"))
    with pytest.raises(UserError, match="no neck of satdifuser 'gww', did you mean 'gw'"):
        model.neck("gww")
    with pytest.raises(UserError, match="imagestats has no neck"):
        models.build("imagestats").neck()


def test_a_mixture_leaves_its_warm_up_by_training_and_not_by_being_looked_at(model: SatDiFuser):
    stages = model(images(2)).stages
    neck = model.neck("moe").eval()
    assert isinstance(neck, MixtureOfExperts)
    with torch.no_grad():
        dense = neck(stages).pooled
        assert int(neck.calls.max()) == 0
        neck.train()(stages)
        assert neck.calls.tolist() == [3, 3, 3, 3]  # one call per kept step
        neck.calls.fill_(WARM_UP)
        sparse = neck.eval()(stages).pooled
    assert not torch.allclose(dense, sparse)


def test_top_two_is_the_softmax_over_the_best_two_gates_worked_out_by_hand(model: SatDiFuser):
    neck = model.neck("moe").eval()
    assert isinstance(neck, MixtureOfExperts)
    mixture, x = neck.scale_moes[3], torch.randn(3, 384, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gates = mixture.get_submodule("gate_network")(x)
        expected = []
        for index in range(3):
            best = gates[index].topk(2)
            experts = [mixture.get_submodule(f"experts.{number}")(x[index : index + 1]) for number in best.indices]
            expected.append(sum(weight * one for weight, one in zip(best.values.softmax(0), experts, strict=True)))
        torch.testing.assert_close(mixture(x, dense=False), torch.cat(expected), rtol=1e-4, atol=1e-5)


# Mistakes.


def first_step_at_one(save) -> list[int]:
    return [1, *network.timesteps()][: network.STEPS - min(save)]


def loose_transformers(size) -> UNet:
    unet = UNet(size)
    for module in unet.modules():
        if isinstance(module, torch.nn.GroupNorm) and module.eps == 1e-6:
            module.eps = 1e-4
    return unet


MISTAKES = {
    "a group norm's epsilon": (parity, "UNet", loose_transformers),
    "velocity for noise": (network, "clean", lambda x, noise, signal: x * signal.sqrt() - noise * (1 - signal).sqrt()),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_usual_mistake_does_not_pass(monkeypatch: pytest.MonkeyPatch, mistake: str):
    where, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(where, name, wrong)
    outcome = verify.run_kit(SLIM)
    assert not outcome.passed
    assert any("is off by" in failure for failure in outcome.failures)
    assert outcome.error > outcome.limit


def test_a_claim_of_a_kit_that_is_not_true_of_the_network_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "inversion", first_step_at_one)
    outcome = verify.run_kit(SLIM)
    assert any("argument unet_timesteps_called" in failure for failure in outcome.failures)


def test_an_unknown_argument_and_an_unmapped_array_are_failures(tmp_path: Path):
    manifest = json.loads((SLIM / "manifest.json").read_text())
    for name, change in {
        "guidance": lambda case: case["args"].update(guidance_scale=7.5),
        "array": lambda case: case["arrays"].update({"norm/aerial": case["arrays"].pop("norm/s2")}),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        content = json.loads(json.dumps(manifest))
        content["golden"]["cases"] = {"norm": content["golden"]["cases"]["norm"]}
        change(content["golden"]["cases"]["norm"])
        with np.load(SLIM / "golden.npz") as stored:
            np.savez(folder / "golden.npz", **{"norm/s2": stored["norm/s2"], "norm/aerial": stored["norm/s2"]})
        (folder / "manifest.json").write_text(json.dumps(content))
        assert "models/parity/satdifuser.py" in verify.run_kit(folder).failures[0]
