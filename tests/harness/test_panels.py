"""Pictures: what is drawn where, in which colours, and always the same bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness import panels
from harness.figures import DOTS
from harness.panels import Panel, nearest, pca_panel, principal_colours, rendered
from leaderboards.files import JournalError
from models.common.errors import UserError

WATER, RIGHT, WRONG, IGNORED = (0, 114, 178), (195, 220, 192), (213, 94, 0), (0, 0, 0)


def panel(**changes: Any) -> Panel:
    """A picture of 64 x 64 pixels: water on the left, predicted on the upper half; the lower right corner is ignored."""
    generator = np.random.default_rng(0)
    label, prediction = np.zeros((2, 64, 64), np.int64)
    label[:, :32], prediction[:32], label[32:, 32:] = 1, 1, 255
    facts: dict[str, Any] = {
        "model": "deo",
        "dataset": "lakes",
        "name": "a.tif",
        "image": generator.random((4, 64, 64)) * 4000,
    }
    return Panel(**(facts | {"label": label, "prediction": prediction} | changes))


def drawn(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def middles(picture: np.ndarray, column: int) -> dict[str, tuple[int, ...]]:
    """The colours in the four quarters of a panel in the first row."""
    step, gap, top = (round(inches * DOTS) for inches in (panels.CELL + panels.GAP, panels.GAP, 2 * panels.LINE))
    side = round(panels.CELL * DOTS)
    at = {"upper": top + side // 4, "lower": top + 3 * side // 4}
    across = {"left": gap + column * step + side // 4, "right": gap + column * step + 3 * side // 4}
    return {f"{v} {h}": tuple(map(int, picture[at[v], across[h]])) for v in at for h in across}


def test_label_prediction_and_errors_stand_side_by_side_in_their_colours(tmp_path: Path):
    panels.panels(tmp_path / "p.png", [panel()], ("land", "water"), 255)
    picture = drawn(tmp_path / "p.png")
    land = (242, 242, 242)
    assert middles(picture, 1) == {
        "upper left": WATER,
        "upper right": land,
        "lower left": WATER,
        "lower right": IGNORED,
    }
    assert middles(picture, 2) == {
        "upper left": WATER,
        "upper right": WATER,
        "lower left": land,
        "lower right": land,
    }
    assert middles(picture, 3) == {
        "upper left": RIGHT,
        "upper right": WRONG,
        "lower left": WRONG,
        "lower right": IGNORED,
    }


def test_every_panel_is_a_row_and_pairs_have_both_dates(tmp_path: Path):
    one, two = panel(), panel(before=np.zeros((4, 64, 64)), image=np.ones((4, 64, 64)))
    sizes = {}
    for name, rows in {"one": [one], "three": [one] * 3, "pair": [two]}.items():
        panels.panels(tmp_path / name, rows, ("land", "water"), 255)
        sizes[name] = drawn(tmp_path / name).shape[:2]
    cell = DOTS * (panels.CELL + panels.GAP)
    assert sizes["three"][0] - sizes["one"][0] == pytest.approx(2 * (cell + DOTS * panels.LINE), abs=2)
    assert sizes["pair"][1] - sizes["one"][1] == pytest.approx(cell, abs=1)
    before, after = (middles(drawn(tmp_path / "pair"), column)["upper left"] for column in (0, 1))
    assert (before, after) == ((0, 0, 0), (255, 255, 255))  # one stretch for both dates


def test_the_same_panels_give_the_same_bytes_whatever_the_settings_of_the_machine(tmp_path: Path):
    import matplotlib

    panels.panels(tmp_path / "a.png", [panel()], ("land", "water"), 255)
    with matplotlib.rc_context({"font.size": 20, "figure.dpi": 30, "savefig.dpi": 30, "image.origin": "lower"}):
        panels.panels(tmp_path / "b.png", [panel()], ("land", "water"), 255)
        assert matplotlib.rcParams["font.size"] == 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").info.keys() <= {"dpi"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "mIoU 0.17"),  # water: 1024 / (1024 + 1024 + 1024); land: none of 1024 is right
        ({"before": np.zeros((4, 64, 64))}, "IoU of change 0.33"),
        ({"label": np.full((64, 64), 255)}, "no labelled pixel"),
        (
            {"before": np.zeros((4, 64, 64)), **dict.fromkeys(("label", "prediction"), np.zeros((64, 64), int))},
            "no change",
        ),
    ],
)
def test_the_title_gives_the_score_of_the_image(changes: dict, text: str):
    assert panels._score(panel(**changes), 2, 255).startswith(text)


def test_many_classes_and_odd_names_are_drawn_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    label = np.arange(64 * 64).reshape(64, 64) % 70
    classes = [f"_a ${k}$ 水 {'long ' * 9}" for k in range(70)]
    row = panel(model="m_{$", name="x" * 300, label=label, prediction=label, image=np.zeros((2, 64, 64)))
    panels.panels(tmp_path / "p.png", [row], classes, -1)
    assert drawn(tmp_path / "p.png").shape[0] > 800  # the legend has its room
    assert not recwarn.list


def test_what_cannot_be_drawn_leaves_the_old_picture(tmp_path: Path):
    path = tmp_path / "p.png"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"label of a\.tif holds the value 255"):
        panels.panels(path, [panel()], ("land", "water"), -1)
    with pytest.raises(UserError, match="200 panels do not fit into one picture: ask for 100 at most"):
        panels.panels(path, [panel()] * 200, ("land", "water"), 255)
    with pytest.raises(UserError, match="the features of deo hold NaN"):
        pca_panel(path, np.zeros((3, 8, 8)), {"deo": np.full((3, 2, 2), np.nan)})
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]
    with pytest.raises(JournalError, match="cannot write"):
        panels.panels(path / "below-a-file.png", [panel()], ("land", "water"), 255)


def test_colours_are_found_by_band_and_stretched_between_percentiles():
    ramp = np.arange(101.0).repeat(101).reshape(101, 101)  # percentiles 2 and 98 are 2 and 98
    image = np.stack([ramp * 0, ramp, 100 - ramp, ramp * 7 + 3])  # blue, green, red, NIR
    (picture,) = rendered(("S2:B02", "S2:B03", "S2:B04", "S2:B08"), image)
    shown = ((np.arange(101.0) - 2) / 96).clip(0, 1)
    assert picture[:, 0, 0] == pytest.approx(shown[::-1])
    assert picture[:, 0, 1] == pytest.approx(shown)
    assert not picture[..., 2].any()  # a constant channel is black
    (unnamed,) = rendered((), image)
    assert unnamed[:, 0] == pytest.approx(np.stack([0 * shown, shown, shown[::-1]], axis=1))


def test_radar_is_grey_and_pixels_without_a_number_are_black():
    image = np.arange(2 * 32.0).reshape(2, 4, 8) + 100
    image[:, 0, 0] = np.nan, -np.inf
    (picture,) = rendered(("S1:VV", "S1:VH"), image)
    assert np.ptp(picture, axis=2).max() == 0
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[3, 7].tolist() == [1, 1, 1]
    assert not rendered((), np.full((3, 4, 4), np.nan))[0].any()


def test_components_stand_by_variance_and_each_is_shown_in_standard_deviations():
    # Channels 1, 0, 2 have standard deviations 4, 2, 1 and are uncorrelated: they are the components.
    signs = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).reshape(3, 2, 2)
    features = signs * np.array([2, 4, 1])[:, None, None] + 10.0
    colours = principal_colours(features)
    assert colours == pytest.approx((signs[[1, 0, 2]] / 4 + 0.5).transpose(1, 2, 0))


@pytest.mark.parametrize("seed", range(3))
def test_colours_do_not_depend_on_the_order_scale_or_offset_of_the_channels(seed: int):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(20, 6, 5)) * np.arange(1, 21)[:, None, None]
    colours = principal_colours(features)
    assert colours.shape == (6, 5, 3)
    assert principal_colours(3 * features[generator.permutation(20)] - 7) == pytest.approx(colours, abs=1e-9)
    assert principal_colours(features.astype(np.float32)) == pytest.approx(colours, abs=1e-4)


@pytest.mark.parametrize("features", [np.ones((5, 4, 4)), np.full((2, 4, 4), 1e7 / 3), np.zeros((1, 1, 1))])
def test_features_without_variance_are_mid_grey(features: np.ndarray):
    assert np.all(principal_colours(features) == 0.5)


def test_two_channels_leave_the_third_colour_at_rest():
    colours = principal_colours(np.random.default_rng(0).normal(size=(2, 4, 4)))
    assert np.all(colours[..., 2] == 0.5)
    assert np.all(colours[..., :2].std(axis=(0, 1)) > 0.1)


def test_a_map_is_enlarged_to_the_cell_in_which_each_pixel_centre_lies():
    assert nearest(np.array([[1, 2], [3, 4]]), 4, 2).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert nearest(np.array([[0, 1, 2]]), 1, 5).tolist() == [[0, 0, 1, 2, 2]]
    assert nearest(np.array([[0, 1, 2, 3]]), 1, 2).tolist() == [[1, 3]]


def test_maps_of_several_models_stand_beside_the_image_and_break_into_lines(tmp_path: Path):
    generator = np.random.default_rng(0)
    image = generator.random((3, 32, 32))
    maps = {f"m{number}": generator.normal(size=(8, 4, 4)) for number in range(6)}
    for name in ("a.png", "b.png"):
        pca_panel(tmp_path / name, image, maps, title="lakes, a.tif")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = drawn(tmp_path / "a.png")
    wanted = (principal_colours(maps["m0"])[0, 0] * 255).astype(int)
    side = round(panels.CELL * DOTS)
    corner = picture[
        round(2 * panels.LINE * DOTS) + side // 8,
        round((panels.CELL + 2 * panels.GAP) * DOTS) + side // 8,
    ]
    assert np.abs(corner.astype(int) - wanted).max() <= 2
    assert picture.shape[1] == pytest.approx(5 * DOTS * (panels.CELL + panels.GAP), abs=12)


def test_real_pairs_are_drawn(shared: Path, tmp_path: Path):
    folder = shared / "data" / "clcd" / "test"
    before, after, label = (np.asarray(Image.open(folder / part / "00513.png")) for part in ("time1", "time2", "label"))
    row = panel(
        image=after.transpose(2, 0, 1),
        before=before.transpose(2, 0, 1),
        bands=("RGB:red", "RGB:green", "RGB:blue"),
        label=label // 255,
        prediction=(np.abs(after.astype(int) - before).mean(axis=2) > 60).astype(np.uint8),
    )
    panels.panels(tmp_path / "p.png", [row], ("no change", "change"), -1)
    assert WRONG in {tuple(map(int, pixel)) for pixel in drawn(tmp_path / "p.png").reshape(-1, 3)}
