"""OSCD: tiles of cities with their padding, torchgeo's pixels, our validation cities, and damage."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from models.common.errors import UserError
from tasks.data import oscd
from tasks.data.dataset import with_validation
from tasks.data.tiled import tiles
from tasks.data.twins.rasters import save

CARD = oscd.CARDS["oscd"]
ALL = [band.name for band in CARD.bands]
IMAGES = f"{oscd.ARCHIVE}Images"


@pytest.fixture
def root(twins, tmp_path) -> Path:
    return Path(shutil.copytree(twins / CARD.location, tmp_path / "oscd"))


def test_cities_and_tiles_past_the_border_are_those_of_torchgeo_and_zero(twins):
    from torchgeo.datasets import OSCD

    data = oscd.open_dataset(CARD, twins / CARD.location)
    assert [f"S2:{name}" for name in OSCD.all_bands] == ALL
    for split in ("train", "test"):
        theirs = OSCD(twins / CARD.location, split=split, checksum=False)
        cities = {str(files["region"]): theirs[index] for index, files in enumerate(theirs.files)}
        assert {data.tiles[name].image for name in data.splits[split]} == set(cities)
        for name in data.splits[split]:
            tile = data.tiles[name]
            sample = cities[tile.image]
            window = np.s_[..., tile.row : tile.row + 96, tile.column : tile.column + 96]
            image, mask = sample["image"].numpy()[window], sample["mask"].numpy()[0][window]
            rows, columns = mask.shape
            found, label = data.read(name, ALL), data.label(name)
            np.testing.assert_array_equal(found[..., :rows, :columns], image)
            np.testing.assert_array_equal(label[:rows, :columns], mask)
            assert label.shape == (96, 96)
            for past in (np.s_[..., rows:, :], np.s_[..., :, columns:]):
                assert (found[past] == 0).all()
                assert (label[past] == CARD.ignore).all()


# Columns x rows of the published images.
SIZES = """abudhabi 785x799, aguasclaras 525x471, beihai 772x902, beirut 1070x1180, bercy 360x395, bordeaux 461x517,
cupertino 788x1015, hongkong 540x695, mumbai 557x858, nantes 582x522, paris 390x408, pisa 718x776, rennes 563x339,
saclay_e 688x639, brasilia 469x433, chongqing 544x730, dubai 634x774, lasvegas 716x824, milano 558x545,
montpellier 451x426, norcia 385x241, rio 426x353, saclay_w 688x639, valencia 476x458"""


def test_the_tiling_of_the_published_sizes_gives_the_published_counts():
    count = {}
    for line in SIZES.replace("\n", " ").split(", "):
        city, size = line.split()
        columns, rows = map(int, size.split("x"))
        count[city] = len(list(tiles(city, rows, columns, CARD.size)))
    assert tuple(sum(count[city] for city in oscd.CITIES[split].split()) for split in ("train", "test")) == (827, 385)
    assert CARD.splits == (827, 0, 385)
    ours = sum(count[city] for city in oscd.validation_cities())
    assert ours == 179  # of 827: 22 %


def test_our_validation_cities_are_the_documented_draw():
    assert oscd.validation_cities() == tuple(random.Random(0).sample(sorted(oscd.CITIES["train"].split()), 3))
    assert (len(oscd.CITIES["train"].split()), len(oscd.CITIES["test"].split())) == (14, 10)


def test_the_validation_split_of_ours_is_whole_cities_of_train(twins):
    data = oscd.open_dataset(CARD, twins / CARD.location)
    assert data.splits["val"] == ()
    splits = with_validation(data)
    assert {data.tiles[name].image for name in splits["val"]} == {"rennes"}
    assert {data.tiles[name].image for name in splits["train"]} == {"aguasclaras", "beirut"}
    assert sorted(splits["train"] + splits["val"]) == sorted(data.splits["train"])
    assert splits["test"] == data.splits["test"]


def test_both_forms_of_the_label_say_the_same(root):
    first = oscd.open_dataset(CARD, root).label("norcia_0000_0000")
    folder = root / f"{oscd.ARCHIVE}Test Labels" / "norcia" / "cm"
    (folder / "cm.png").unlink()
    data = oscd.open_dataset(CARD, root)
    np.testing.assert_array_equal(data.label("norcia_0000_0000"), first)
    assert first.max() == 1
    save(folder / "norcia-cm.tif", np.zeros((200, 110), dtype=np.uint8))
    with pytest.raises(UserError, match=r"norcia-cm\.tif holds 0; a label is 1 \(no change\) or 2"):
        data.label("norcia_0000_0000")


def test_labels_may_lie_beside_the_images(root, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(root / IMAGES, flat)
    for labels in root.glob("*Labels/*"):
        shutil.copytree(labels / "cm", flat / labels.name / "cm")
    ours, theirs = oscd.open_dataset(CARD, flat), oscd.open_dataset(CARD, root)
    assert ours.splits == theirs.splits
    np.testing.assert_array_equal(ours.label("norcia_0096_0000"), theirs.label("norcia_0096_0000"))


def test_damage_gets_one_sentence_that_names_the_place(root):
    city = root / IMAGES / "beirut"
    data = oscd.open_dataset(CARD, root)
    with rasterio.open(city / "imgs_2_rect" / "B11.tif") as source:
        plane = source.read(1)
    save(city / "imgs_2_rect" / "B11.tif", plane[:100])
    with pytest.raises(UserError, match="beirut: before, after and label are of different sizes"):
        data.read("beirut_0000_0000", ["S2:B11", "S2:B04"])
    (city / "imgs_2_rect" / "B11.tif").unlink()
    with pytest.raises(UserError, match="imgs_2_rect lacks the bands B11"):
        oscd.open_dataset(CARD, root)
    shutil.rmtree(city)
    with pytest.raises(UserError, match="lacks the city beirut of the train split"):
        oscd.open_dataset(CARD, root)
    (root / IMAGES / "train.txt").write_text("aguasclaras, rennes\n")
    assert {tile.image for tile in oscd.open_dataset(CARD, root).tiles.values()} == {"aguasclaras", "rennes", "norcia"}
    shutil.rmtree(root / f"{oscd.ARCHIVE}Test Labels")
    with pytest.raises(UserError, match=r"norcia has no .*cm\.png; fetch the labels again"):
        oscd.open_dataset(CARD, root)
