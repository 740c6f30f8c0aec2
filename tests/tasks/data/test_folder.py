"""The `folder` reader: real tiles and masks, small files made here, and every way of getting a description wrong."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio

from models.common.errors import UserError
from tasks.data import folder
from tasks.data.folder import FolderDataset

EUROSAT_MS = """
name = "eurosat-ms"
root = "{root}"
layout = "class-folders"
bands = ["S2:B01", "S2:B02", "S2:B03", "S2:B04", "S2:B05", "S2:B06", "S2:B07", "S2:B08", "S2:B09", "S2:B10", "S2:B11",
         "S2:B12", "S2:B8A"]
unit = "dn"
gsd = 10
split = {{rule = "every-nth", test = 3}}
"""
EUROSAT_RGB = """
name = "eurosat-rgb"
root = "{root}"
layout = "class-folders"
bands = ["RGB:red", "RGB:green", "RGB:blue"]
unit = "uint8"
gsd = 10
size = 64
split = {{rule = "every-nth", test = 3}}
"""
TOY = """
name = "toy"
layout = "class-folders"
bands = ["RGB:red", "RGB:green", "RGB:blue"]
unit = "uint8"
split = {rule = "every-nth", test = 3, val = 4}
"""
MASKS = """
name = "roofs"
layout = "image-mask"
images = "images"
masks = "masks"
classes = ["ground", "roof"]
bands = ["RGB:red", "RGB:green", "RGB:blue"]
unit = "uint8"
split = {rule = "every-nth", test = 2}
"""


def save(path: Path, image: np.ndarray) -> Path:
    """Write (C, H, W) in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    size = {"count": image.shape[0], "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver=driver, **size) as target:
            target.write(image)
    return path


def image(value: int, channels: int = 3, size: int = 8, dtype: type = np.uint8) -> np.ndarray:
    return np.full((channels, size, size), value, dtype=dtype)


def toy(root: Path, text: str = TOY) -> Path:
    """Two classes of six 8 x 8 images; returns the path of the description."""
    for number in range(6):
        save(root / "field" / f"f{number}.png", image(10 + number))
        save(root / "water" / f"w{number}.png", image(100 + number))
    return describe(root, text)


def roofs(root: Path, text: str = MASKS, roof: int = 1) -> Path:
    """Four 8 x 8 images with masks whose lower half is roof."""
    for number in range(4):
        mask = image(0, channels=1)
        mask[:, 4:] = roof
        save(root / "images" / f"t{number}.png", image(number))
        save(root / "masks" / f"t{number}.png", mask)
    return describe(root, text)


def describe(root: Path, text: str) -> Path:
    path = root / "set.toml"
    path.write_text(text)
    return path


def open_at(path: Path) -> FolderDataset:
    return folder.open_dataset(folder.card(path), path)


def five_nearest_neighbours(data: FolderDataset) -> float:
    """Accuracy of a plain 5-NN on per-band mean and standard deviation, standardised with the train split."""
    bands = [band.name for band in data.bands]

    def features(split: str) -> tuple[np.ndarray, np.ndarray]:
        images = [data.read(name, bands).astype(np.float64) for name in data.splits[split]]
        rows = [np.concatenate([one.mean((1, 2)), one.std((1, 2))]) for one in images]
        return np.array(rows), np.array([data.label(name) for name in data.splits[split]])

    (bank, labels), (queries, truth) = features("train"), features("test")
    mean, std = bank.mean(0), bank.std(0)
    bank, queries = (bank - mean) / std, (queries - mean) / std
    distances = ((queries[:, None] - bank[None]) ** 2).sum(-1)
    nearest = labels[np.argsort(distances, axis=1, kind="stable")[:, :5]]
    votes = np.array([np.bincount(row).argmax() for row in nearest])
    return float((votes == truth).mean())


@pytest.mark.parametrize(
    ("name", "text", "accuracy"), [("eurosat_ms", EUROSAT_MS, 0.677), ("eurosat_rgb", EUROSAT_RGB, 0.655)]
)
def test_real_tiles_reproduce_the_published_five_nearest_neighbour_accuracy(shared, tmp_path, name, text, accuracy):
    data = open_at(describe(tmp_path, text.format(root=shared / "data" / name)))
    assert five_nearest_neighbours(data) == pytest.approx(accuracy, abs=5e-4)


def test_real_multispectral_tiles_keep_dtype_order_and_values(shared, tmp_path):
    root = shared / "data" / "eurosat_ms"
    data = open_at(describe(tmp_path, EUROSAT_MS.format(root=root)))
    assert data.card.size == 64
    assert data.card.modality == "ms"
    assert sum(data.card.splits) == 196
    assert data.warnings == []
    name = data.splits["test"][0]
    got = data.read(name, ["S2:B8A", "S2:B10"])
    with rasterio.open(root / name) as source:
        np.testing.assert_array_equal(got, source.read([13, 10]))
    assert got.dtype == np.uint16
    assert got[1].mean() < 100 < got[0].mean()


def test_statistics_are_those_of_every_pixel_of_the_train_split(shared, tmp_path):
    data = open_at(describe(tmp_path, EUROSAT_MS.format(root=shared / "data" / "eurosat_ms")))
    names = [band.name for band in data.card.bands]
    pixels = np.stack([data.read(name, names) for name in data.splits["train"]]).astype(np.float64)
    np.testing.assert_allclose([band.mean for band in data.bands], pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose([band.std for band in data.bands], pixels.std((0, 2, 3)), rtol=1e-10)
    assert {band.statistics for band in data.bands} == {"train split"}


def test_real_roofs_need_drop_alpha_because_rgba_is_mixed_with_rgb(shared, tmp_path):
    root = shared / "data" / "buildings_oam"
    text = f'root = "{root}"\n' + MASKS.replace('"masks"', '"masks_derived"')
    with pytest.raises(
        UserError, match=r"OAM-.*\.png has 4 bands where the description declares 3; `drop_alpha = true`"
    ):
        open_at(describe(tmp_path, text))
    data = open_at(describe(tmp_path, "drop_alpha = true\n" + text))
    name = data.splits["train"][0]
    mask = data.label(name)
    assert data.read(name, ["RGB:blue", "RGB:red"]).shape == (2, 256, 256)
    assert mask.shape == (256, 256)
    assert set(np.unique(mask)) <= {0, 1}


def test_every_third_file_is_test_and_every_fourth_of_the_rest_validation(tmp_path):
    data = open_at(toy(tmp_path))
    everything = [f"field/f{n}.png" for n in range(6)] + [f"water/w{n}.png" for n in range(6)]
    assert data.splits["test"] == tuple(everything[2::3])
    rest = [name for name in everything if name not in data.splits["test"]]
    assert data.splits["val"] == tuple(rest[3::4])
    assert data.splits["train"] == tuple(name for name in rest if name not in data.splits["val"])
    assert data.card.splits == (6, 2, 4)
    assert [data.label(name) for name in ("field/f0.png", "water/w3.png")] == [0, 1]
    assert data.card.classes == ("field", "water")
    assert data.partitions() == {}


def test_a_rule_without_val_leaves_the_validation_split_empty(tmp_path):
    data = open_at(toy(tmp_path, TOY.replace(", val = 4", "")))
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [8, 0, 4]


def test_splits_may_be_folders(tmp_path):
    for split, count in (("a", 3), ("b", 1), ("c", 2)):
        for number in range(count):
            save(tmp_path / split / "field" / f"{number}.jpg", image(number))
    text = TOY.replace('{rule = "every-nth", test = 3, val = 4}', '{folders = {train = "a", val = "b", test = "c"}}')
    data = open_at(describe(tmp_path, text))
    assert data.splits["test"] == ("c/field/0.jpg", "c/field/1.jpg")
    assert data.card.splits == (3, 1, 2)


def test_splits_may_be_lists_that_name_files_in_any_short_form(tmp_path):
    path = toy(tmp_path, TOY.replace('{rule = "every-nth", test = 3, val = 4}', "{lists = LISTS}"))
    (tmp_path / "train.txt").write_text("water/w1.png\nf0\n\n")
    (tmp_path / "val.csv").write_text("name,remark\nfield/f3,cloudy\n")
    (tmp_path / "test.txt").write_text("w5.png\n")
    path.write_text(path.read_text().replace("LISTS", '{train = "train.txt", val = "val.csv", test = "test.txt"}'))
    data = open_at(path)
    assert data.splits == {
        "train": ("water/w1.png", "field/f0.png"),
        "val": ("field/f3.png",),
        "test": ("water/w5.png",),
    }


def test_masks_pair_by_stem_or_by_pattern_and_map_their_values(tmp_path):
    text = MASKS.replace("\nbands", "\nmask_values = [0, 255]\nbands")
    by_stem = open_at(roofs(tmp_path / "stem", text, roof=255))
    mask = by_stem.label("images/t0.png")
    assert mask.tolist() == [[0] * 8] * 4 + [[1] * 8] * 4
    assert mask.dtype == np.int64
    root = tmp_path / "pattern"
    save(root / "a_rgb.tif", image(1))
    save(root / "b_rgb.tif", image(2))
    save(root / "gt" / "a-mask.png", image(1, channels=1))
    save(root / "gt" / "b-mask.png", image(0, channels=1))
    text = MASKS.replace('"images"', '"*_rgb.tif"').replace('"masks"', '"gt/*-mask.png"')
    by_pattern = open_at(describe(root, text))
    assert by_pattern.splits == {"train": ("a_rgb.tif",), "val": (), "test": ("b_rgb.tif",)}
    assert by_pattern.label("a_rgb.tif").min() == 1


def test_the_ignored_value_stays_in_the_mask(tmp_path):
    path = roofs(tmp_path, MASKS.replace("\nbands", "\nignore = 255\nbands"), roof=255)
    data = open_at(path)
    assert data.card.ignore == 255
    assert np.unique(data.label("images/t1.png")).tolist() == [0, 255]


def test_images_of_different_sizes_are_allowed_with_a_warning(tmp_path):
    path = toy(tmp_path)
    save(tmp_path / "field" / "f9.png", image(9, size=5))
    data = open_at(path)
    assert data.warnings == ["images of 2 different sizes, 5x5 to 8x8 pixels"]
    assert data.card.size == 8


def test_the_version_changes_with_the_description_and_with_the_files(tmp_path):
    path = toy(tmp_path)
    first = open_at(path).version
    assert open_at(path).version == first
    path.write_text(path.read_text() + "# remark\n")
    second = open_at(path).version
    save(tmp_path / "field" / "f9.png", image(9))
    assert len({first, second, open_at(path).version}) == 3


def test_a_mask_value_outside_the_classes_is_refused(tmp_path):
    data = open_at(roofs(tmp_path, roof=7))
    with pytest.raises(UserError, match=r"t0\.png holds 7; classes are 0, 1"):
        data.label("images/t0.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_truncated_image_is_refused_by_name(tmp_path, suffix, keep):
    path = toy(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    broken = save(tmp_path / "field" / f"f0{suffix}", noise)
    content = broken.read_bytes()
    broken.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=rf"f0{suffix} cannot be read; it is truncated"):
        open_at(path).read(f"field/f0{suffix}", ["RGB:red", "RGB:green", "RGB:blue"])


def test_a_png_with_one_wrong_byte_is_refused(tmp_path):
    path = toy(tmp_path)
    broken = tmp_path / "field" / "f0.png"
    content = bytearray(broken.read_bytes())
    content[-20] ^= 1
    broken.write_bytes(content)
    with pytest.raises(UserError, match="truncated or damaged"):
        open_at(path).read("field/f0.png", ["RGB:red"])


def other_dtype(root: Path) -> None:
    save(root / "water" / "w5.png", image(1, dtype=np.uint16))


def four_channels(root: Path) -> None:
    save(root / "water" / "w5.png", image(1, channels=4))


def one_channel(root: Path) -> None:
    save(root / "water" / "w5.png", image(1, channels=1))


def no_image(root: Path) -> None:
    (root / "water" / "w5.png").write_text("not an image")


def other_folder(root: Path) -> None:
    (root / "elsewhere").mkdir()


def nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("damage", "old", "new", "message"),
    [
        (four_channels, "", "", r"w5\.png has 4 bands .* declares 3; `drop_alpha = true` ignores the last"),
        (one_channel, "", "", r"w5\.png has 1 bands where the description declares 3$"),
        (other_dtype, "", "", r"w5\.png holds uint16 where the images before it hold uint8"),
        (no_image, "", "", r"w5\.png cannot be read"),
        (other_folder, "unit", 'classes = ["field", "water"]\nunit', "elsewhere is not among `classes`"),
        (nothing, "layout", "layuot", "no key of set.toml 'layuot', did you mean 'layout'"),
        (nothing, '"class-folders"', '"class-folder"', "did you mean 'class-folders'"),
        (nothing, '"uint8"', '"uint16"', "no unit in set.toml 'uint16', did you mean 'uint8'"),
        (nothing, 'unit = "uint8"', "", "band 1 needs a name and a unit"),
        (nothing, '"RGB:blue"', '"RGB:red"', "names a band twice"),
        (nothing, 'name = "toy"', 'name = "a b/c"', "only letters, digits"),
        (nothing, 'name = "toy"', "name = 3", "`name` cannot be 3"),
        (nothing, 'name = "toy"', "", "lacks `name`"),
        (nothing, 'name = "toy"', 'name = "toy', "is not valid TOML"),
        (nothing, "unit", 'root = "nowhere"\nunit', "nowhere is missing; set `root`"),
        (nothing, "unit", 'images = "*.jpg"\nunit', "the train split is empty"),
        (nothing, "unit", 'images = "/tmp/*.jpg"\nunit', "`images` is a path below `root`"),
        (nothing, "val = 4", "val = 100", "the val split is empty"),
        (nothing, "test = 3", "test = 1", "whole numbers from 2"),
        (nothing, "test = 3", "tset = 3", "did you mean 'test'"),
        (nothing, "every-nth", "every-third", "did you mean 'every-nth'"),
        (nothing, 'rule = "every-nth", ', "", "`split` needs a `rule`, `folders` or `lists`"),
        (nothing, 'rule = "every-nth", test = 3', 'folders = {train = "a"}', "names no val and no test"),
        (nothing, 'rule = "every-nth", test = 3', 'folders = {train = "a", val = "b", test = "c"}', "a is missing"),
        (
            nothing,
            'rule = "every-nth", test = 3',
            'lists = {train = "a", val = "b", test = "c"}',
            "list .*a is missing",
        ),
        (nothing, "unit", 'modality = "radar"\nunit', "no modality in set.toml 'radar'"),
        (nothing, '"class-folders"', '"image-mask"', "lacks `images`, `masks`, `classes`"),
    ],
)
def test_a_mistake_gets_one_sentence_that_names_the_place(tmp_path, damage, old, new, message):
    path = toy(tmp_path, TOY.replace(old, new, 1) if old else TOY)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_at(path)
    assert "\n" not in str(caught.value)


def test_a_list_that_repeats_an_image_in_two_splits_is_refused(tmp_path):
    lists = '{lists = {train = "a.txt", val = "b.txt", test = "b.txt"}}'
    path = toy(tmp_path, TOY.replace('{rule = "every-nth", test = 3, val = 4}', lists))
    (tmp_path / "a.txt").write_text("f0\n")
    (tmp_path / "b.txt").write_text("f1\n")
    with pytest.raises(UserError, match=r"field/f1\.png is in the val and in the test split"):
        open_at(path)
    (tmp_path / "b.txt").write_text("f7\n")
    with pytest.raises(UserError, match=r"b\.txt: 'f7' stands for 0 images"):
        open_at(path)


def test_a_mask_of_another_size_or_missing_is_refused(tmp_path):
    path = roofs(tmp_path)
    save(tmp_path / "masks" / "t2.png", image(0, channels=1, size=6))
    with pytest.raises(UserError, match=r"t2\.png has 1 band\(s\) of 6x6; a mask is one band of its image's 8x8"):
        open_at(path)
    (tmp_path / "masks" / "t2.png").unlink()
    with pytest.raises(UserError, match=r"images/t2\.png has no mask"):
        folder.card(path)


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no data-set description '.*none\.toml'"):
        folder.card(tmp_path / "none.toml")


def test_a_card_is_made_without_numpy_rasterio_or_torch(tmp_path):
    path = toy(tmp_path)
    code = (
        "import sys; from pathlib import Path; from tasks.data import folder; "
        f"card = folder.card(Path({str(path)!r})); assert card.splits == (6, 2, 4), card; "
        "print([name for name in ('numpy', 'rasterio', 'torch', 'geobench') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
