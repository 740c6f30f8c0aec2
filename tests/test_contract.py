"""The feature contract, over every adapter in `models` and each of its variants, with random weights."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import ceil, isnan
from pathlib import Path

import pytest
import torch

import models
from models.common.backbone import Backbone, Batch
from models.common.card import Card, ClipToDeviations, DivideByMaximum, Mode, Step, ZScore
from models.common.errors import UserError
from models.common.spectral import COMMON, SPECTRAL, UNITS
from models.common.weights import module_digest

LABELS = [f"{name}:{variant}" for name in models.names() for variant in models.adapter(name).CARD.variants]
ANY_BANDS = 5  # how many a mode without named bands is given


@pytest.fixture(scope="module", params=LABELS)
def model(request: pytest.FixtureRequest) -> Iterator[Backbone]:
    """Every model once; the module scope lets each go before the next one is built."""
    return models.build(request.param, weights="random")


def count(mode: Mode) -> int:
    return len(mode.bands) or ANY_BANDS


def sizes(mode: Mode) -> list[tuple[int, int]]:
    """Small sizes that a mode allows: square, upright, and one that the deeper strides do not divide."""
    step = mode.multiple * ceil(16 / mode.multiple)
    if mode.shape == "fixed":
        return [(mode.size, mode.size)] * 2
    if mode.shape == "square":
        return [(2 * step, 2 * step), (3 * step, 3 * step), (2 * step + mode.multiple, 2 * step + mode.multiple)]
    return [(2 * step, 2 * step), (3 * step, 2 * step), (2 * step + mode.multiple, 3 * step)]


def images(mode: Mode, size: tuple[int, int], number: int = 2) -> Batch:
    """Noise for every sensor of a mode; bands without names have the wavelengths of Sentinel-2, for who takes them so."""
    generator = torch.Generator().manual_seed(1)
    sensors = (mode, *mode.beside)
    known = [SPECTRAL[f"S2:B{2 + index:02d}"] for index in range(ANY_BANDS)]
    return Batch(
        {part.sensor: torch.randn(number, count(part), *size, generator=generator) for part in sensors},
        mode.name,
        wavelengths={part.sensor: tuple(one.wavelength for one in known) for part in sensors if not part.bands},
        bandwidths={part.sensor: tuple(one.bandwidth for one in known) for part in sensors if not part.bands},
    )


def test_stages_and_vector_are_as_the_card_declares_in_every_mode_at_every_size(model: Backbone):
    for mode in model.card.inputs:
        per = count(mode) if model.card.per_band else 1
        for height, width in sizes(mode):
            features = model(images(mode, (height, width)))
            assert [tuple(stage.shape) for stage in features.stages] == [
                (2, channels * per, ceil(height / stride), ceil(width / stride))
                for channels, stride in zip(model.card.channels, model.card.strides, strict=True)
            ]
            assert features.pooled.shape == (2, model.card.width * per)
            for tensor in (*features.stages, features.pooled):
                assert tensor.dtype == torch.float32
                assert bool(torch.isfinite(tensor).all())


def test_every_kind_of_vector_has_the_width_of_the_card(model: Backbone):
    mode = model.card.inputs[0]
    batch = images(mode, sizes(mode)[0])
    _, vectors = model.encode(batch)
    assert set(vectors) - {"raw", "mean", "cls"} == {"default"}
    per = count(mode) if model.card.per_band else 1
    assert {vector.shape for vector in vectors.values()} == {(2, model.card.width * per)}
    kind = sorted(vectors)[-1]
    assert torch.equal(model(batch, pooled=kind).pooled, vectors[kind])
    with pytest.raises(UserError, match="pooled vector"):
        model(batch, pooled="maximum")


def test_an_image_has_the_same_features_alone_and_in_a_batch(model: Backbone):
    for mode in model.card.inputs:
        batch = images(mode, sizes(mode)[1], number=3)
        together = model(batch)
        alone = model(replace(batch, images={sensor: image[1:2] for sensor, image in batch.images.items()}))
        for ours, theirs in zip((*alone.stages, alone.pooled), (*together.stages, together.pooled), strict=True):
            torch.testing.assert_close(ours[0], theirs[1], rtol=1e-4, atol=1e-4)


def test_the_same_batch_gives_the_same_bits_twice_and_leaves_the_weights_alone(model: Backbone):
    mode = model.card.inputs[0]
    batch = images(mode, sizes(mode)[0])
    digest, before = module_digest(model), batch.images[mode.sensor].clone()
    first, second = model(batch), model(batch)
    for one, other in zip((*first.stages, first.pooled), (*second.stages, second.pooled), strict=True):
        assert torch.equal(one, other)
        # The class token of a fresh DINOv3 sees little of the image: its layer scales begin at 1e-5.
        assert not torch.allclose(one[0], one[1], rtol=1e-6, atol=1e-6)
    assert torch.equal(batch.images[mode.sensor], before)
    assert module_digest(model) == digest


def test_it_is_in_eval_mode_frozen_and_without_gradient(model: Backbone):
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    mode = model.card.inputs[0]
    features = model(images(mode, sizes(mode)[0]))
    assert not any(tensor.requires_grad for tensor in (*features.stages, features.pooled))


def test_wrong_input_is_refused_with_a_sentence(model: Backbone):
    for mode in model.card.inputs:
        good = images(mode, sizes(mode)[0])
        image = good.images[mode.sensor]
        broken = image.clone()
        broken[0, 0, 0, 0] = float("nan")
        wrong = {
            "NaN or infinite": broken,
            "float images": image.to(torch.uint8),
            r"float images \(B, C, H, W\)": image[0],
            "height and width": image[..., :0],
        }
        if mode.bands:
            wrong[f"wants {len(mode.bands)} bands"] = torch.cat([image, image], dim=1)
        if mode.multiple > 1:
            wrong[f"divisible by {mode.multiple}"] = image[..., :-1]
        for sentence, value in wrong.items():
            with pytest.raises(UserError, match=sentence):
                model(replace(good, images={**good.images, mode.sensor: value}))
        with pytest.raises(UserError, match="wants sensor"):
            model(Batch({"infrared": image}, mode.name))
    with pytest.raises(UserError, match="no input mode"):
        model(Batch({"optical": torch.zeros(1, 3, 32, 32)}, "no such mode"))


def test_the_card_counts_the_parameters_and_carries_its_label(model: Backbone):
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert abs(millions - model.card.parameters_millions) < 0.1
    assert model.card.label in LABELS or f"{model.card.label}:{model.card.variant}" in LABELS


@pytest.mark.parametrize("label", LABELS)
def test_the_card_is_complete(label: str):
    card = models.card(label)
    for text in (card.title, card.licence, card.paper, card.pretraining_data, card.gmacs):
        assert text.strip()
    assert len(card.channels) == len(card.strides) == 4
    assert card.inputs
    for mode in card.inputs:
        assert mode.size % mode.multiple == 0
        assert mode.unit in UNITS
        assert mode.normalisation_source in ("authors", "dataset", "undocumented")
        assert mode.shape in ("any", "square", "fixed")
        assert set(mode.wants) <= {"wavelength", "bandwidth", "gsd", "location", "time", "area"}
        assert all(part.sensor != mode.sensor and not part.beside for part in mode.beside)
        assert all(band in SPECTRAL or band in COMMON for band in mode.bands)
        for step in mode.normalisation:
            assert isinstance(step, Step)
            assert step.describe()
            if isinstance(step, ZScore | ClipToDeviations) and step.mean:
                assert len(step.mean) == len(step.std) == len(mode.bands)
                assert all(std > 0 and not isnan(std) for std in step.std)
            if isinstance(step, DivideByMaximum):
                assert set(step.bands) <= set(mode.bands)
    assert_checkpoint_is_reachable(card)


def assert_checkpoint_is_reachable(card: Card) -> None:
    checkpoint = card.checkpoint
    needed = {
        "hub": (checkpoint.file, checkpoint.repo, checkpoint.revision),
        "https": (checkpoint.file, checkpoint.url),
        "manual": (checkpoint.file, checkpoint.where),
        "none": (),
    }
    assert all(needed[checkpoint.fetch])


def test_no_two_models_are_published_under_one_name():
    names = [name for label in LABELS for name in models.card(label).published_as]
    assert len(names) == len(set(names))


def test_cards_are_read_without_torch_timm_or_torchvision():
    code = (
        "import sys, models\n"
        "for name in models.names():\n"
        "    for variant in models.adapter(name).CARD.variants: models.card(f'{name}:{variant}')\n"
        "print([heavy for heavy in ('torch', 'timm', 'torchvision', 'numpy') if heavy in sys.modules])"
    )
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_neck_of_the_card_takes_the_stages_and_can_be_trained(model: Backbone):
    mode = model.card.inputs[0]
    stages = model(images(mode, sizes(mode)[0])).stages if model.card.necks else ()
    for kind in model.card.necks:
        neck = model.neck(kind)
        features = neck(stages)
        assert len(features.stages) == 4
        features.pooled.sum().backward()
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in neck.parameters())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    if not model.card.necks:
        with pytest.raises(UserError, match="has no neck"):
            model.neck()
