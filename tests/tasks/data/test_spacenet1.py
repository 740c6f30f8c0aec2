"""SpaceNet 1: the authors' order and numbers, masks against torchgeo and a hand-drawn footprint, 8 and 16 bits."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from models.common.errors import UserError
from tasks.data import spacenet1
from tasks.data.twins.rasters import save

CARD, EIGHT = spacenet1.CARDS["spacenet1"], spacenet1.CARDS["spacenet1-8band"]
RGB = ["RGB:red", "RGB:green", "RGB:blue"]


@pytest.fixture
def root(twins, tmp_path) -> Path:
    return Path(shutil.copytree(twins / CARD.location, tmp_path / CARD.location))


def test_of_the_whole_set_the_first_4999_are_train_and_the_next_1000_validation():
    names = sorted(f"3band_AOI_1_RIO_img{number}" for number in range(1, 6941))
    splits = spacenet1.split_by_order(names, CARD.splits)
    assert {split: len(found) for split, found in splits.items()} == {"train": 4999, "val": 1000, "test": 941}
    assert splits["train"][:4] == tuple(f"3band_AOI_1_RIO_img{number}" for number in (1, 10, 100, 1000))
    assert splits["val"][0] == names[4999]
    assert splits["test"] == tuple(names[5999:])


def test_a_part_of_the_set_is_split_in_the_same_proportions_and_says_so(twins):
    data = spacenet1.open_dataset(CARD, twins / CARD.location)
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [20, 4, 4]
    assert data.warnings == ["spacenet1: 20/4/4 samples (train/val/test) where the whole set has 4999/1000/941"]


def test_images_and_masks_are_those_of_torchgeo_at_its_size(twins, monkeypatch):
    from torchgeo.datasets import SpaceNet1

    monkeypatch.setattr(SpaceNet1, "chip_size", {})  # which resamples; everything else is as released
    theirs = SpaceNet1(twins, checksum=False)
    data = spacenet1.open_dataset(CARD, twins / CARD.location)
    assert len(theirs) == sum(map(len, data.splits.values()))
    for index in range(len(theirs)):
        sample, name = theirs[index], Path(theirs.images[index]).stem
        np.testing.assert_array_equal(data.read(name, RGB), sample["image"].numpy())
        np.testing.assert_array_equal(data.label(name), sample["mask"].numpy())


def test_a_footprint_covers_the_pixels_whose_centres_are_inside(root):
    name = "3band_AOI_1_RIO_img1"
    with rasterio.open(root / "train" / "3band" / f"{name}.tif") as source:
        corners = [source.transform * place for place in ((2, 3), (5.6, 3), (5.6, 7), (2, 7), (2, 3))]
    shape = {"type": "Polygon", "coordinates": [[[x, y, 0.0] for x, y in corners]]}
    polygons = root / "train" / "geojson" / "Geo_AOI_1_RIO_img1.geojson"
    polygons.write_text(
        json.dumps({"type": "FeatureCollection", "features": [{"geometry": shape}, {"geometry": None}]})
    )
    label = spacenet1.open_dataset(CARD, root).label(name)
    expected = np.zeros_like(label)
    expected[3:7, 2:6] = 1  # the centre of column 5 is at 5.5
    np.testing.assert_array_equal(label, expected)


def test_an_image_without_buildings_is_all_background(root):
    data = spacenet1.open_dataset(CARD, root)
    assert data.label("3band_AOI_1_RIO_img3").max() == 0
    (root / "train" / "geojson" / "Geo_AOI_1_RIO_img1.geojson").write_text("")  # as some of the published ones are
    assert data.label("3band_AOI_1_RIO_img1").max() == 0


def test_polygons_of_longitude_and_latitude_fall_on_an_image_in_metres(root):
    place = "AOI_1_RIO_img2"
    west, south, east, north = rasterio.warp.transform_bounds(
        "EPSG:32723", "EPSG:4326", 650000, 7460000, 650032, 7460032
    )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    save(
        root / "train" / "3band" / f"3band_{place}.tif",
        np.zeros((3, 64, 64), dtype=np.uint8),
        crs="EPSG:32723",
        transform=rasterio.transform.from_origin(650000, 7460064, 1, 1),
    )
    geometry = {"type": "MultiPolygon", "coordinates": [[ring]]}
    (root / "train" / "geojson" / f"Geo_{place}.geojson").write_text(json.dumps({"features": [{"geometry": geometry}]}))
    label = spacenet1.open_dataset(CARD, root).label(f"3band_{place}")
    assert label[34:, 2:30].min() == 1
    assert label[:30].max() == 0
    assert label[:, 34:].max() == 0


def test_eight_bits_are_uint8_and_sixteen_bits_are_counts_that_nobody_documents(root):
    eight = spacenet1.open_dataset(EIGHT, root)
    assert eight.read(eight.splits["test"][0], ["RGB:red", "WV2:nir2"]).dtype == np.uint16
    assert {band.unit for band in eight.bands} == {"undocumented"}
    assert {band.unit for band in spacenet1.open_dataset(CARD, root).bands} == {"uint8"}
    for file in (root / "train" / "3band").glob("*.tif"):
        with rasterio.open(file) as source:
            image, profile = source.read(), {"crs": source.crs, "transform": source.transform}
        save(file, image.astype(np.uint16) * 8, **profile)
    sixteen = spacenet1.open_dataset(CARD, root)
    assert {band.unit for band in sixteen.bands} == {"undocumented"}
    assert sixteen.read("3band_AOI_1_RIO_img1", RGB).dtype == np.uint16
    save(file, image, **profile)
    with pytest.raises(UserError, match=rf"{file.name} holds uint8 where the first image holds uint16"):
        sixteen.read(file.stem, RGB)


def test_damage_gets_one_sentence_that_names_the_file(root):
    data = spacenet1.open_dataset(CARD, root)
    polygons = root / "train" / "geojson" / "Geo_AOI_1_RIO_img1.geojson"
    polygons.write_text('{"features": [')
    with pytest.raises(UserError, match=r"img1\.geojson is no whole GeoJSON of footprints"):
        data.label("3band_AOI_1_RIO_img1")
    line = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    polygons.write_text(json.dumps({"features": [{"geometry": line}]}))
    with pytest.raises(UserError, match="holds a LineString; footprints are polygons"):
        data.label("3band_AOI_1_RIO_img1")
    polygons.unlink()
    with pytest.raises(UserError, match=r"1 files are missing, first .*Geo_AOI_1_RIO_img1\.geojson"):
        spacenet1.open_dataset(CARD, root)
    shutil.rmtree(root / "train" / "8band")
    assert spacenet1.present(EIGHT, root.parent) is None
    save(root / "train" / "3band" / "3band_AOI_1_RIO_img0.tif", np.zeros((4, 8, 8), dtype=np.uint8))
    (root / "train" / "geojson" / "Geo_AOI_1_RIO_img0.geojson").write_text("")
    polygons.write_text("")
    with pytest.raises(UserError, match="holds 4 bands of uint8; spacenet1 has 3"):
        spacenet1.open_dataset(CARD, root)
