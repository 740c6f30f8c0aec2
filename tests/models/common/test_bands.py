"""The transform compiler: units, bands and sizes that cannot silently go wrong."""

from dataclasses import replace

import pytest
import torch

from models.common.bands import compile_transform
from models.common.card import Card, Checkpoint, Divide, DivideByMaximum, Mode, ZScore
from models.common.errors import UserError
from models.common.spectral import band

OPTICAL = ("S2:B04", "S2:B03", "S2:B02")
SENTINEL2 = [band(name, name, "dn") for name in ("S2:B02", "S2:B03", "S2:B04", "S2:B08")]
STATISTICS = [replace(entry, mean=float(10 * index), std=float(index + 1)) for index, entry in enumerate(SENTINEL2)]


def toy_card(*modes: Mode) -> Card:
    return Card("toy", "a toy", modes, Checkpoint("none"), (1, 1, 1, 1), (4, 8, 16, 32), 1, "MIT", "none")


RGB = Mode("rgb", ("red", "green", "blue"), "uint8", (Divide(255.0),), size=8, multiple=4)
MS = Mode(
    "ms",
    (*OPTICAL, "S2:B08"),
    "dn",
    (DivideByMaximum(OPTICAL), ZScore((0.5, 0.5, 0.5, 1000.0), (0.5, 0.5, 0.5, 500.0))),
    8,
    4,
)


def pixels(*values: float) -> torch.Tensor:
    """One image (1, C, 2, 4) of constant bands."""
    return torch.tensor(values).view(1, -1, 1, 1).expand(1, -1, 2, 4).clone()


def test_an_rgb_model_takes_red_green_blue_of_a_multispectral_set_through_the_named_rendering():
    transform = compile_transform(toy_card(RGB), SENTINEL2, input_size="native", fit="pad")
    assert transform.read == ("S2:B04", "S2:B03", "S2:B02")
    image = transform(pixels(3000.0, 1500.0, 6000.0))
    # reflectance 0.3 is full scale, 0.15 half, and 0.6 is clipped; two rows of zeros pad 2 x 4 to 4 x 4
    assert torch.allclose(image[0, :, 0, 0], torch.tensor([1.0, 0.5, 1.0]))
    assert image.shape == (1, 3, 4, 4)
    assert image[0, :, 2:].abs().max() == 0
    assert "dn -> uint8" in "\n".join(transform.describe())


def test_reflectance_is_rendered_to_dn_and_uint8_fractions_are_not_taken_for_reflectance():
    reflectance = [replace(entry, unit="reflectance") for entry in SENTINEL2]
    image = compile_transform(toy_card(MS), reflectance, input_size="native")(
        pixels(0.1, 0.2, 0.4, 0.15).repeat(1, 1, 2, 1)
    )
    assert torch.allclose(image[0, 3, 0, 0], torch.tensor((1500.0 - 1000) / 500))
    fraction = [band(f"RGB:{colour}", colour, "fraction") for colour in ("red", "green", "blue")]
    image = compile_transform(toy_card(RGB), fraction, input_size=4)(pixels(0.5, 1.0, 0.25))
    assert torch.allclose(image[0, :, 0, 0], torch.tensor([0.5, 1.0, 0.25]))


def test_three_bands_are_divided_by_their_own_joint_maximum_and_the_fourth_is_z_scored():
    transform = compile_transform(toy_card(MS), SENTINEL2, input_size="native")
    image = transform(pixels(500.0, 1000.0, 2000.0, 1500.0).repeat(1, 1, 2, 1))
    expected = torch.tensor([(500 / 2000 - 0.5) / 0.5, (1000 / 2000 - 0.5) / 0.5, (2000 / 2000 - 0.5) / 0.5, 1.0])
    assert torch.allclose(image[0, :, 3, 3], expected)


def test_a_black_image_is_not_divided_by_its_maximum():
    image = compile_transform(toy_card(MS), SENTINEL2, input_size=4)(pixels(0.0, 0.0, 0.0, 1000.0))
    assert torch.isfinite(image).all()
    assert torch.allclose(image[0, :, 0, 0], torch.tensor([-1.0, -1.0, -1.0, 0.0]))


def test_the_first_mode_that_the_bands_satisfy_is_used():
    assert compile_transform(toy_card(MS, RGB), SENTINEL2).mode.name == "ms"
    assert compile_transform(toy_card(MS, RGB), SENTINEL2[:3]).mode.name == "rgb"
    assert compile_transform(toy_card(MS, RGB), SENTINEL2, only_rgb=True).mode.name == "rgb"


def test_what_cannot_be_compiled_names_the_band_and_the_remedy():
    with pytest.raises(UserError, match=r"toy .*ms: the data set has no S2:B08"):
        compile_transform(toy_card(MS), SENTINEL2[:3])
    strange = [replace(entry, unit="undocumented") for entry in SENTINEL2]
    with pytest.raises(UserError, match=r"S2:B04 is in unit 'undocumented'.*normalisation=dataset"):
        compile_transform(toy_card(MS), strange)


def test_missing_bands_are_zeros_after_normalisation_or_the_nearest_wavelength():
    zero = compile_transform(toy_card(MS), SENTINEL2[:3], missing_bands="zero", input_size=4)(pixels(1.0, 2.0, 3.0))
    assert zero[0, 3].abs().max() == 0
    repeat = compile_transform(toy_card(MS), SENTINEL2[:3], missing_bands="repeat", input_size=4)
    assert repeat.channels[3].band is not None
    assert repeat.channels[3].band.name == "S2:B04"  # 665 nm is nearest to 833 nm


def test_the_z_score_of_the_data_set_uses_its_numbers_in_the_models_order():
    transform = compile_transform(toy_card(MS), STATISTICS, normalisation="dataset", input_size=4)
    image = transform(pixels(7.0, 6.0, 5.0, 8.0))  # in the order of `read`: B04, B03, B02, B08
    # B04: (7 - 20) / 3, B03: (6 - 10) / 2, B02: (5 - 0) / 1, B08: (8 - 30) / 4
    assert torch.allclose(image[0, :, 0, 0], torch.tensor([-13 / 3, -2.0, 5.0, -5.5]))


def test_the_slip_of_deos_evaluation_exchanges_two_standard_deviations_and_says_so():
    transform = compile_transform(toy_card(MS), STATISTICS, normalisation="dataset", input_size=4, swap_rgb_std=True)
    image = transform(pixels(7.0, 6.0, 5.0, 8.0))
    assert torch.allclose(image[0, :, 0, 0], torch.tensor([-13.0, -2.0, 5 / 3, -5.5]))
    assert "exchanged" in " ".join(transform.notes)


def test_a_band_without_spread_is_divided_by_one_and_a_band_without_statistics_is_refused():
    flat = [replace(entry, std=0.0) for entry in STATISTICS]
    transform = compile_transform(toy_card(MS), flat, normalisation="dataset", input_size=4)
    assert torch.isfinite(transform(pixels(5.0, 6.0, 7.0, 8.0))).all()
    assert any("standard deviation 0" in note for note in transform.notes)
    with pytest.raises(UserError, match="no statistics"):
        compile_transform(toy_card(MS), SENTINEL2, normalisation="dataset")


def test_undocumented_normalisation_falls_back_to_the_data_set_and_is_noted():
    mode = replace(MS, normalisation_source="undocumented")
    transform = compile_transform(toy_card(mode), STATISTICS, input_size=4)
    assert isinstance(transform.steps[0], ZScore)
    assert any("undocumented" in note for note in transform.notes)


@pytest.mark.parametrize(
    ("size", "fit", "image", "seen"),
    [
        ("native", "resize", (64, 64), (70, 70)),
        ("native", "pad", (64, 64), (70, 70)),
        ("native", "resize", (63, 90), (56, 84)),
        ("native", "pad", (63, 90), (70, 98)),
        ("model", "resize", (64, 64), (224, 224)),
        (98, "resize", (64, 32), (98, 98)),
        (100, "pad", (64, 32), (112, 112)),
        ("native", "resize", (5, 5), (14, 14)),
    ],
)
def test_sizes_are_mended_as_asked(size: str | int, fit: str, image: tuple[int, int], seen: tuple[int, int]):
    card = toy_card(replace(RGB, size=224, multiple=14))
    transform = compile_transform(card, SENTINEL2, input_size=size, fit=fit)
    assert transform(torch.rand(1, 3, *image)).shape[2:] == seen


def test_a_resized_batch_carries_the_gsd_it_is_seen_at():
    transform = compile_transform(toy_card(RGB), SENTINEL2, input_size=8)
    batch = transform.batch(torch.rand(2, 3, 4, 4), gsd=10.0)
    assert batch.gsd == 5.0
    assert batch.bands["optical"] == ("red", "green", "blue")
    assert batch.wavelengths["optical"][0] == pytest.approx(664.6)
