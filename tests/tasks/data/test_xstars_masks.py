"""FLAIR, SpaceNet 8 and Chesapeake on Landsat 8: twins in the released layout, hand-made masks, and bad inputs."""

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from models.common.errors import UserError
from tasks.data import chesapeake_landsat, flair, spacenet8
from tasks.data.folder import opened as opened_file
from tasks.data.xstars_cards import NLCD, XSTARS_CARDS

SETS = ("flair", "spacenet8", "chesapeake-landsat8")
RGB = ("RGB:red", "RGB:green", "RGB:blue")
SCENE = "PRE-event/10400100684A4B00_0_0_10.tif"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twins")
    for name in SETS:
        card = XSTARS_CARDS[name]
        import_module(f"tasks.data.twins.{card.family}").write(root / card.location)
    return root


@pytest.fixture
def copies(twins: Path, tmp_path: Path) -> Path:
    """The twins, to be damaged."""
    shutil.copytree(twins, tmp_path / "data")
    return tmp_path / "data"


def opened(name: str, root: Path) -> Any:
    card = XSTARS_CARDS[name]
    reader = import_module(f"tasks.data.{card.family}")
    found = reader.present(card, root)
    assert found is not None
    return reader.open_dataset(card, found)


def write(path: Path, image: np.ndarray, **place: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = image.shape
    size = {"count": count, "height": height, "width": width, "dtype": image.dtype.name}
    place = {"transform": from_origin(300000, 4300000, 30, 30), **place}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as file:
        file.write(image)


@pytest.mark.parametrize(
    ("name", "counts", "size"),
    [
        ("flair", (19, 1, 6), 256),
        ("spacenet8", (125, 100, 25), 256),
        ("chesapeake-landsat8", (12, 6, 6), 200),
    ],
)
def test_a_twin_is_read_as_the_release_would_be(twins: Path, name: str, counts: tuple[int, ...], size: int):
    dataset = opened(name, twins)
    assert tuple(len(dataset.splits[split]) for split in ("train", "val", "test")) == counts
    bands = [band.name for band in dataset.card.bands]
    seen = set()
    for sample in dataset.splits["train"][:30]:
        image, mask = dataset.read(sample, bands), dataset.label(sample)
        assert image.shape == (3, size, size)
        assert mask.shape == (size, size)
        assert mask.dtype == np.int64
        assert np.array_equal(dataset.read(sample, bands[::-1]), image[::-1])
        seen |= set(np.unique(mask).tolist())
    assert seen <= set(range(dataset.card.num_classes))
    assert len(seen) > 1
    assert all(np.isfinite([band.mean, band.std]).all() for band in dataset.bands)
    assert dataset.version == opened(name, twins).version


def test_a_set_that_is_not_there_is_none(tmp_path: Path):
    for name in SETS:
        card = XSTARS_CARDS[name]
        assert import_module(f"tasks.data.{card.family}").present(card, tmp_path) is None


def test_flair_reads_the_middle_of_a_patch_and_gathers_the_rare_classes(twins: Path):
    dataset = opened("flair", twins)
    sample = dataset.splits["test"][0]
    with opened_file(dataset.root / sample) as file:
        image = file.read([1, 2, 3])
    with opened_file(dataset.root / flair.mask_of(sample)) as file:
        mask = file.read(1)[128:384, 128:384]
    assert np.array_equal(dataset.read(sample, RGB), image[:, 128:384, 128:384])
    classes = dataset.label(sample)
    assert np.array_equal(classes[mask <= 12], mask[mask <= 12])
    assert (mask > 12).any()
    assert not classes[mask > 12].any()
    assert [dataset.card.classes[number] for number in (1, 5, 12)] == ["building", "water", "plowed land"]


def test_flair_keeps_zones_and_domains_in_one_split(twins: Path):
    splits = opened("flair", twins).splits
    zones = {split: {str(Path(name).parents[1]) for name in names} for split, names in splits.items()}
    assert not zones["train"] & zones["val"]
    assert {Path(zone).parts[1][:4] for zone in zones["test"]} == set(flair.DOMAINS["test"])
    assert {Path(zone).parts[1][:4] for zone in zones["train"] | zones["val"]} == set(flair.DOMAINS["train"])


def test_a_damaged_flair_is_refused(copies: Path):
    dataset = opened("flair", copies)
    sample = dataset.splits["train"][0]
    mask = dataset.root / flair.mask_of(sample)
    write(mask, np.full((1, 512, 512), 20, np.uint8))
    with pytest.raises(UserError, match=r"holds 20..20; FLAIR's classes are 1..19"):
        dataset.label(sample)
    write(dataset.root / sample, np.zeros((5, 500, 512), np.uint8))
    with pytest.raises(UserError, match="is 500x512; FLAIR's patches are 512 px square"):
        dataset.read(sample, RGB)
    mask.unlink()
    with pytest.raises(UserError, match=r"1 files are missing, first .*MSK_"):
        opened("flair", copies)
    shutil.rmtree(next((copies / "flair/flair_1_aerial_test").glob("D068*")))
    with pytest.raises(UserError, match="lacks the domains D068"):
        opened("flair", copies)


def scene(root: Path, features: list[dict[str, Any]]) -> np.ndarray:
    """The mask of one scene of half-metre pixels, its upper left corner at 90.5 W, 29.9 N."""
    step = 4.5e-6
    image, label = root / SCENE, root / "annotations/0_0_10.geojson"
    place = {"crs": "EPSG:4326", "transform": from_origin(-90.5, 29.9, step, step)}
    write(image, np.zeros((3, 1300, 1300), np.uint8), **place)
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    spacenet8.scene_mask.cache_clear()
    return spacenet8.scene_mask(image, label)


def feature(kind: str, pixels: list[tuple[int, int]], **properties: Any) -> dict[str, Any]:
    points = [[-90.5 + x * 4.5e-6, 29.9 - y * 4.5e-6] for x, y in pixels]
    coordinates = [points] if kind == "Polygon" else points
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}


def test_spacenet8_draws_buildings_to_the_pixel_and_roads_three_metres_to_either_side(tmp_path: Path):
    square = [(100, 200), (160, 200), (160, 240), (100, 240), (100, 200)]
    mask = scene(
        tmp_path,
        [
            feature("Polygon", square, building="yes"),
            feature("LineString", [(0, 220), (1300, 220)], highway="residential", lanes="2"),
            feature("LineString", [(0, 900), (1300, 900)], highway="residential", lanes=None),
        ],
    )
    assert np.array_equal(np.argwhere(mask == spacenet8.BUILDING).min(0), [200, 100])
    assert np.array_equal(np.argwhere(mask == spacenet8.BUILDING).max(0), [239, 159])
    road = np.flatnonzero(mask[:, 700] == spacenet8.ROAD)
    assert abs(len(road) - 2 * spacenet8.ROAD_BUFFER / (4.5e-6 * 110860)) <= 1  # metres per degree of latitude there
    assert abs(road.mean() - 219.5) <= 1
    assert not mask[890:910].any()


def test_spacenet8_without_features_is_background(tmp_path: Path):
    assert not scene(tmp_path, []).any()


def test_spacenet8_keeps_the_tiles_of_a_scene_together_and_in_place(twins: Path):
    dataset = opened("spacenet8", twins)
    scenes = [{spacenet8.place(name)[0] for name in names} for names in dataset.splits.values()]
    assert sum(map(len, scenes)) == len(set().union(*scenes)) == 10
    name = dataset.splits["train"][7]
    path, row, column = spacenet8.place(name)
    assert (row, column) == (1, 2)
    with rasterio.open(dataset.root / path) as file:
        assert np.array_equal(dataset.read(name, RGB), file.read()[:, 256:512, 512:768])
    whole = spacenet8.scene_mask(dataset.root / path, dataset.annotations[path])
    assert np.array_equal(dataset.label(name), whole[256:512, 512:768])


def test_a_damaged_spacenet8_is_refused(copies: Path):
    dataset = opened("spacenet8", copies)
    name = dataset.splits["train"][0]
    path, _, _ = spacenet8.place(name)
    spacenet8.scene_mask.cache_clear()
    label = dataset.annotations[path]
    for text in ("{", '{"features": 3}', '{"features": [{"geometry": null}]}'):
        label.write_text(text)
        with pytest.raises(UserError, match="holds no sound GeoJSON features"):
            dataset.label(name)
    write(dataset.root / path, np.zeros((3, 1200, 1300), np.uint8))
    with pytest.raises(UserError, match="has 3 bands of 1200x1300; scenes are RGB of 1300x1300"):
        dataset.read(name, RGB)
    (dataset.root / path).unlink()
    with pytest.raises(UserError, match=r"has no image of .* \(1 are missing\)"):
        opened("spacenet8", copies)
    shutil.rmtree(dataset.root / "annotations")
    with pytest.raises(UserError, match=r"has no .geojson file"):
        opened("spacenet8", copies)


def test_chesapeake_reads_image_and_classes_at_the_same_places(tmp_path: Path):
    """Every pixel of the image holds its own code, so that the two can be compared after both were thinned."""
    codes = np.array(list(NLCD), np.uint8)
    fields = codes[np.random.default_rng(0).integers(0, len(codes), (250, 190))].repeat(4, 0).repeat(4, 1)
    stem = tmp_path / "chesapeake-landsat8/md_1m_2013_extended-debuffered-{}_tiles/m_3907833_nw_17_1"
    for split in ("train", "val", "test"):
        write(Path(f"{stem}{chesapeake_landsat.IMAGE}".format(split)), np.stack([fields] * 9).astype(np.float32))
        write(Path(f"{stem}{chesapeake_landsat.MASK}".format(split)), fields[None])
    dataset = opened("chesapeake-landsat8", tmp_path)
    sample = dataset.splits["test"][0]
    image, classes = dataset.read(sample, ("L8:B4", "L8:B3", "L8:B2")), dataset.label(sample)
    assert image.shape == (3, 200, 200)
    assert np.array_equal(codes[classes], image[0].astype(np.uint8))
    assert (
        image[0, 0, 0] == fields[120 + 1, 1]
    )  # of the middle 760 of 1000 rows; 3.8 px a step, the middle of the first


def test_chesapeake_ignores_missing_labels_and_refuses_unknown_codes(copies: Path):
    dataset = opened("chesapeake-landsat8", copies)
    sample = dataset.splits["train"][0]
    mask = dataset.root / chesapeake_landsat.mask_of(sample)
    write(mask, np.full((1, 260, 260), 0, np.uint8))
    assert np.array_equal(np.unique(dataset.label(sample)), [dataset.card.ignore])
    write(mask, np.full((1, 260, 260), 12, np.uint8))
    with pytest.raises(UserError, match="holds 12; NLCD's codes here are 11, 21"):
        dataset.label(sample)
    write(dataset.root / sample, np.zeros((9, 100, 100), np.float32))
    with pytest.raises(UserError, match="has 9 bands of 100x100; a tile is larger"):
        dataset.read(sample, ("L8:B4",))
    mask.unlink()
    with pytest.raises(UserError, match=r"1 files are missing, first .*_nlcd.tif"):
        opened("chesapeake-landsat8", copies)
    for folder in dataset.root.glob("*-val_tiles"):
        shutil.rmtree(folder)
    with pytest.raises(UserError, match="of the val split of chesapeake-landsat8 is there"):
        opened("chesapeake-landsat8", copies)
