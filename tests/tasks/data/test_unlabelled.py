"""Every layout of unlabelled images, built as it is distributed, recognised, and read in the right bands and units."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio

from models.common.errors import UserError
from tasks.data.unlabelled import fmow
from tasks.data.unlabelled.images import EUROSAT, SENTINEL2, TEN
from tasks.data.unlabelled.recognise import open_images, open_sensors
from tasks.data.unlabelled.sensors import sensor_name, statistics

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SIZE = 20
# A value per band, so that a band in the wrong place shows; B10, the cirrus band, is the darkest as in real scenes.
VALUE = {band: 1000.0 + 100 * number for number, band in enumerate(SENTINEL2)} | {"B10": 10.0}
WANTED = [VALUE[band] for band in TEN]


def write(
    path: Path, values: Sequence[float], dtype: str = "uint16", names: Sequence[str] = (), size: int = SIZE
) -> Path:
    """An image whose bands are constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    options = {"QUALITY": 100} if driver == "JPEG" else {}
    shape = {"width": size, "height": size, "count": len(values), "dtype": dtype}
    with rasterio.open(path, "w", driver=driver, **shape, **options) as target:
        for number, value in enumerate(values, 1):
            target.write(np.full((size, size), value, dtype), number)
            if names:
                target.set_band_description(number, names[number - 1])
    return path


def in_order(order: Sequence[str]) -> list[float]:
    return [VALUE[band] for band in order]


def means(image: np.ndarray) -> list[float]:
    return image.mean(axis=(1, 2)).tolist()


def hdf5(path: Path, order: Sequence[str] = SENTINEL2, count: int = 3) -> Path:
    values = np.array(in_order(order), dtype="uint16")[None, :, None, None]
    with h5py.File(path, "w") as file:
        file["images"] = values + np.zeros((count, 1, SIZE, SIZE), dtype="uint16")
    return path


def test_deos_hdf5_file_gives_ten_bands_with_red_green_blue_first(tmp_path: Path):
    images = open_images([str(hdf5(tmp_path / "train.h5"))])
    assert (len(images), images.names[2]) == (3, "train.h5#2")
    assert means(images[2]["ms"]) == WANTED
    assert images[0]["ms"].dtype == np.float32
    assert "HDF5" in images.layout


def test_an_hdf5_file_is_opened_again_in_every_process(tmp_path: Path):
    from tasks.data.unlabelled.hdf5 import File

    file = File(hdf5(tmp_path / "train.h5"))
    file.dataset()
    assert pickle.loads(pickle.dumps(file)).dataset().shape == (3, 13, SIZE, SIZE)


@pytest.mark.parametrize(
    ("key", "shape", "sentence"),
    [
        ("data", (2, 13, 8, 8), "holds data; DEO's layout"),
        ("images", (2, 10, 8, 8), r"shape \(2, 10, 8, 8\)"),
        ("images", (0, 13, 8, 8), "is empty"),
    ],
)
def test_another_hdf5_layout_is_refused(tmp_path: Path, key: str, shape: tuple[int, ...], sentence: str):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[key] = np.zeros(shape, dtype="uint16")
    with pytest.raises(UserError, match=sentence):
        open_images([str(tmp_path / "a.h5")])


def test_thirteen_nameless_bands_are_told_by_the_cirrus_band(tmp_path: Path):
    for name, order in (("euro", EUROSAT), ("esa", SENTINEL2)):
        write(tmp_path / name / "Forest/Forest_1.tif", in_order(order))
        assert means(open_images([str(tmp_path / name)])[0]["ms"]) == WANTED


def test_thirteen_bands_in_an_order_that_cannot_be_told_are_refused(tmp_path: Path):
    write(tmp_path / "a.tif", in_order(SENTINEL2[::-1]))
    with pytest.raises(UserError, match=r"cannot be told: band 3 is the darkest.*bands.toml"):
        open_images([str(tmp_path)])


def test_twelve_nameless_bands_are_level_2a(tmp_path: Path):
    write(tmp_path / "a.tif", in_order([band for band in SENTINEL2 if band != "B10"]), dtype="int16")
    assert means(open_images([str(tmp_path)])[0]["ms"]) == WANTED


def test_names_in_the_files_come_before_their_number(tmp_path: Path):
    order = SENTINEL2[::-1]
    write(tmp_path / "a.tif", in_order(order), names=[band.replace("B0", "B") for band in order])
    images = open_images([str(tmp_path)])
    assert means(images[0]["ms"]) == WANTED
    assert "named in the files" in images.layout


def test_a_toml_file_names_bands_and_unit(tmp_path: Path):
    write(tmp_path / "a.tif", [VALUE[band] / 10000 for band in TEN], dtype="float32")
    with pytest.raises(UserError, match="float32 numbers of unknown unit"):
        open_images([str(tmp_path)])
    (tmp_path / "bands.toml").write_text(f'bands = {list(TEN)}\nunit = "reflectance"\n')
    assert means(open_images([str(tmp_path)])[0]["ms"]) == pytest.approx(WANTED)


def test_a_described_folder_gives_its_train_split_alone(tmp_path: Path):
    for number in range(6):
        write(tmp_path / f"Forest/Forest_{number}.tif", in_order(SENTINEL2))
        write(tmp_path / f"River/River_{number}.tif", in_order(SENTINEL2))
    bands = [f"S2:{band}" for band in SENTINEL2]
    text = f'name = "own"\nlayout = "class-folders"\nbands = {bands}\nunit = "dn"\nsplit = {{rule = "every-nth", test = 3}}\n'
    (tmp_path / "own.toml").write_text(text)
    images = open_images([str(tmp_path / "own.toml")])
    assert len(images) == 8
    assert means(images[0]["ms"]) == WANTED


def fmow_folders(root: Path) -> tuple[Path, Path]:
    """Two instances: one with three Sentinel-2 and two RGB images (one of equal stem), one with an RGB image missing."""
    ms, rgb = root / "fmow-sentinel", root / "fmow-rgb"
    for number in (0, 1, 2):
        write(ms / f"train/airport/airport_0/airport_0_{number}.tif", in_order(SENTINEL2))
    write(ms / "train/airport/airport_1/airport_1_0.tif", in_order(SENTINEL2))
    for number in (1, 5):
        write(rgb / f"train/airport/airport_0/airport_0_{number}_rgb.jpg", [51 * number] * 3, "uint8")
        write(rgb / f"train/airport/airport_0/airport_0_{number}_msrgb.jpg", [7] * 3, "uint8")
    return ms, rgb


def pairs(root: Path, rule: str) -> list[tuple[str, str | None]]:
    ms, rgb = fmow_folders(root)
    found = fmow.pair(sorted(ms.rglob("*.tif")), fmow.rgb_images(sorted(rgb.rglob("*.jpg"))), rule)
    return [(one.image.stem, one.rgb.stem if one.rgb else None) for one in found]


def test_the_cycle_rule_repeats_the_shorter_list_within_an_instance(tmp_path: Path):
    assert pairs(tmp_path, "cycle") == [
        ("airport_0_0", "airport_0_1_rgb"),
        ("airport_0_1", "airport_0_5_rgb"),
        ("airport_0_2", "airport_0_1_rgb"),
        ("airport_1_0", None),
    ]


def test_the_exact_rule_wants_equal_stems(tmp_path: Path):
    assert [one for one in pairs(tmp_path, "exact") if one[1]] == [("airport_0_1", "airport_0_1_rgb")]


def test_fmow_is_recognised_in_either_order_of_the_paths(tmp_path: Path):
    ms, rgb = map(str, fmow_folders(tmp_path))
    for paths in ([ms, rgb], [rgb, ms]):
        images = open_images(paths, rgb_share=1.0)
        assert "fMoW-Sentinel with fMoW-RGB" in images.layout
        assert [sorted(images[number]) for number in range(4)] == [["ms", "rgb"]] * 3 + [["ms"]]
        assert means(images[1]["rgb"]) == pytest.approx([1.0] * 3, abs=0.01)
        assert means(images[1]["ms"]) == WANTED


def test_a_share_of_the_samples_keeps_its_rgb(tmp_path: Path):
    ms, rgb = tmp_path / "ms", tmp_path / "rgb"
    files = [ms / f"a/a_0/a_0_{number}.tif" for number in range(400)]
    colours = [rgb / f"a/a_0/a_0_{number}_rgb.jpg" for number in range(400)]
    for file in (*files, *colours):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    images = fmow.open_pairs(ms, files, rgb, colours, "exact", 0.3)
    used = int(images.layout.split(" with RGB;")[0].split()[-1])
    assert 90 <= used <= 150
    assert images.layout == fmow.open_pairs(ms, files, rgb, colours, "exact", 0.3).layout


def test_msc_france_gives_one_place_in_every_sensor(tmp_path: Path):
    for sensor, size, value in (("Landsat", 20, 51), ("Sentinel", 30, 102), ("SPOT", 40, 204)):
        for city in ("Bordeaux", "Grenoble"):
            write(tmp_path / sensor / city / "0.png", [value, 0, 255], "uint8", size=size)
    write(tmp_path / "SPOT/Grenoble/1.png", [0, 0, 0], "uint8")
    images = open_sensors([str(tmp_path)])
    assert set(images.sensors) == {"landsat", "spot", "sentinel"}
    assert images.names == ("Bordeaux/0", "Grenoble/0")
    assert {sensor: image.shape[1] for sensor, image in images[1].items()} == {
        "landsat": 20,
        "sentinel": 30,
        "spot": 40,
    }
    assert means(images[0]["spot"]) == pytest.approx([0.8, 0.0, 1.0])
    assert "2 places of" in images.notes[0]


def test_multi_view_ile_de_france_is_pairs_of_bdortho_and_spot(tmp_path: Path):
    for sensor in ("BDORTHO", "SPOT6"):
        write(tmp_path / sensor / "7.tif", [10, 20, 30], "uint8")
    assert set(open_sensors([str(tmp_path)])[0]) == {"bdortho", "spot"}


def test_eurosats_two_versions_are_twins_by_id(tmp_path: Path):
    write(tmp_path / "eurosat_ms/SeaLake/SeaLake_1.tif", in_order(EUROSAT))
    for number in (1, 2):
        write(tmp_path / f"eurosat_rgb/SeaLake/SeaLake_{number}.jpg", [255, 255, 255], "uint8")
    paths = [str(tmp_path / "eurosat_ms"), str(tmp_path / "eurosat_rgb")]
    images = open_sensors(paths)
    assert images.names == ("SeaLake/SeaLake_1",)
    assert means(images[0]["eurosat_ms"]) == pytest.approx([VALUE[band] / 10000 for band in ("B04", "B03", "B02")])
    assert set(open_sensors([f"sentinel={paths[0]}", f"aerial={paths[1]}"])[0]) == {"sentinel", "aerial"}
    assert "rgb" in open_images(paths)[0]


def test_measured_statistics_are_numpys(tmp_path: Path):
    for number, value in enumerate((0, 51, 255)):
        write(tmp_path / f"a/{number}.png", [value, 10, value // 2], "uint8")
    images = open_sensors([str(tmp_path / "a")])
    mean, std, side = statistics(images, "a")
    pixels = np.stack([images[number]["a"] for number in range(3)]).transpose(1, 0, 2, 3).reshape(3, -1)
    assert mean == pytest.approx(pixels.mean(axis=1).tolist())
    assert std == pytest.approx(np.maximum(pixels.std(axis=1), 1e-6).tolist(), rel=1e-4)
    assert side == SIZE


@pytest.mark.parametrize(
    ("folder", "name"), [("Sentinel-2", "sentinel"), ("SPOT6", "spot"), ("My.Sensor", "my_sensor")]
)
def test_a_sensor_is_named_after_its_folder(folder: str, name: str):
    assert sensor_name(Path("/data") / folder) == name


def test_sets_are_joined_in_order_and_told_apart_by_their_digest(tmp_path: Path):
    write(tmp_path / "a/one.tif", in_order(SENTINEL2))
    hdf5(tmp_path / "b.h5")
    both = open_images([str(tmp_path / "a"), str(tmp_path / "b.h5")])
    assert len(both) == 4
    assert [means(both[number]["ms"]) for number in range(4)] == [WANTED] * 4
    alone = open_images([str(tmp_path / "a")])
    assert alone.digest == open_images([str(tmp_path / "a")]).digest
    write(tmp_path / "a/two.tif", in_order(SENTINEL2))
    assert len({both.digest, alone.digest, open_images([str(tmp_path / "a")]).digest}) == 3


def test_a_subset_reads_its_own_images_and_has_its_own_digest(tmp_path: Path):
    for number in range(3):
        write(tmp_path / f"{number}.tif", [100 + number if band != "B10" else 1 for band in SENTINEL2])
    images = open_images([str(tmp_path)])
    part = images.subset(lambda name: name != "1.tif")
    assert part.names == ("0.tif", "2.tif")
    assert part[1]["ms"][0, 0, 0] == 102
    assert part.digest != images.digest


def test_an_image_too_small_for_any_crop_is_refused_by_name(tmp_path: Path):
    write(tmp_path / "tiny.tif", in_order(SENTINEL2), size=12)
    with pytest.raises(UserError, match=r"tiny.tif \(ms\) has 12x12 pixels, smaller than the smallest crop"):
        open_images([str(tmp_path)])[0]


def test_wrong_paths_and_empty_folders_are_said(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "rgb/a.png", [1, 2, 3], "uint8")
    (tmp_path / "notes.txt").write_text("x")
    wrong = [
        (open_images, "absent", "no data at"),
        (open_images, "empty", "holds no images"),
        (open_images, "rgb", "only RGB images"),
        (open_images, "notes.txt", "is no folder, no HDF5 file"),
        (open_sensors, "empty", "holds no images"),
        (open_sensors, "notes.txt", "is no folder"),
    ]
    for opener, name, sentence in wrong:
        with pytest.raises(UserError, match=sentence):
            opener([str(tmp_path / name)])


def test_twins_without_a_common_name_are_refused(tmp_path: Path):
    write(tmp_path / "a/one.png", [1, 2, 3], "uint8")
    write(tmp_path / "b/two.png", [1, 2, 3], "uint8")
    with pytest.raises(UserError, match=r"no image of one sensor has its twin .*one, \.\.\."):
        open_sensors([str(tmp_path / "a"), str(tmp_path / "b")])


def test_the_real_folders_are_what_their_notes_say(shared: Path):
    data = shared / "data"
    for name, order in (
        ("eurosat_ms", "EuroSAT's order"),
        ("s2_unlabelled", "Sentinel-2's order"),
        ("s2_boadella", "Level-2A"),
    ):
        assert order in open_images([str(data / name)]).layout
    assert "named in the files" in open_images([str(data / "sen1floods11/S2Hand")]).layout
    assert len(open_sensors([str(data / "eurosat_ms"), str(data / "eurosat_rgb")])) == 196
