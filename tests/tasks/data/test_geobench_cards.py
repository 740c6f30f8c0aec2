"""The GEO-Bench cards against what others say: geobench's band tables and README, torchgeo's classes, real samples."""

import ast
import csv
import subprocess
import sys
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from models.common.spectral import UNITS, matches
from tasks.data.geobench_cards import BRICK_KILN_ORDER, CARDS, EUROSAT_ORDER, misnamed

TWELVE = """m-bigearthnet m-so2sat m-brick-kiln m-forestnet m-eurosat m-pv4ger m-pv4ger-seg m-chesapeake-landcover
m-cashew-plantation m-SA-crop-type m-nz-cattle m-NeonTree"""


def test_there_are_the_twelve_sets_of_geobench():
    assert sorted(CARDS) == sorted(TWELVE.split())


def test_the_cards_import_nothing_but_the_standard_library():
    code = "import sys, tasks.data.geobench_cards; print([m for m in ('numpy', 'h5py', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_every_card_is_complete_and_unambiguous(card):
    for column in ("name", "key"):
        values = [getattr(one, column) for one in card.bands]
        assert len(set(values)) == len(values)
    assert all(one.unit in UNITS for one in card.bands)
    assert card.label in ("class", "multilabel", "mask")
    assert len(set(card.classes)) == card.num_classes >= 2
    assert card.family == "geobench"
    assert card.size > 0
    assert card.gsd > 0
    assert min(card.splits) > 0
    assert card.modality in ("optical", "ms")
    assert card.licence
    assert card.citation
    assert card.origin


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_an_rgb_model_finds_each_colour_exactly_once(card, colour):
    assert len([one for one in card.bands if matches(colour, one.name)]) == 1


def test_keys_and_their_order_are_those_of_geobench():
    from geobench import dataset

    s1, s2, l8 = dataset.sentinel1_8_bands, dataset.sentinel2_13_bands, dataset.landsat8_9_bands
    rgb = dataset.make_rgb_bands(0.1)
    without_b10, cloud = s2[:10] + s2[11:], [dataset.CloudProbability()]
    expected = {
        "m-bigearthnet": without_b10,
        "m-so2sat": s1 + s2[1:9] + s2[-2:],
        "m-brick-kiln": s2,
        "m-forestnet": l8[3:0:-1] + l8[4:7],
        "m-eurosat": s2,
        "m-chesapeake-landcover": [*rgb, dataset.SpectralBand("NearInfrared", ("nir",), 1, 0.876)],
        "m-cashew-plantation": without_b10 + cloud,
        "m-SA-crop-type": without_b10 + cloud,
    }
    for name, card in CARDS.items():
        assert [one.key for one in card.bands] == [info.name for info in expected.get(name, rgb)], name


def test_true_band_orders_are_those_of_the_readme_of_geobench():
    readme = str(metadata("geobench").get_payload())
    rows = [line.split("|")[1:4] for line in readme[readme.index("| Channel |") :].split("\n\n")[0].splitlines()[3:]]
    first = ["B01", "B02", "B03", "B04", "B05"]  # the row "0-4 | B01-B05 | B01-B05", which the slice above leaves out
    eurosat, kiln = ([*first, *(row[column].strip() for row in rows)] for column in (1, 2))
    assert EUROSAT_ORDER.split() == eurosat
    composite = {"TCI_R": "TCI:red", "TCI_G": "TCI:green", "TCI_B": "TCI:blue"}
    assert BRICK_KILN_ORDER.split() == [composite.get(name, name) for name in kiln]


def test_only_eurosat_and_brick_kiln_are_misnamed():
    wrong = {name: len(misnamed(card)) for name, card in CARDS.items() if misnamed(card)}
    assert wrong == {"m-eurosat": 5, "m-brick-kiln": 7}
    assert misnamed(CARDS["m-eurosat"])["12 - SWIR"] == "S2:B12"


def _assigned(file: str, variable: str):
    """The literal that torchgeo's source assigns to a class variable (importing torchgeo would take seconds)."""
    spec = find_spec("torchgeo")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "datasets" / file).read_text())
    for node in ast.walk(tree):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if any(getattr(target, "id", "") == variable for target in targets):
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {variable} in {file}")


def test_class_names_stand_in_the_order_of_the_sets_they_come_from(shared):
    assert CARDS["m-bigearthnet"].classes == tuple(_assigned("bigearthnet.py", "class_sets")[43])
    assert CARDS["m-so2sat"].classes == tuple(_assigned("so2sat.py", "classes"))
    folders = (path.name for path in (shared / "data" / "eurosat_rgb").iterdir() if path.is_dir())
    assert CARDS["m-eurosat"].classes == tuple(sorted(folders))


def test_sizes_classes_and_splits_are_those_of_the_published_table(shared):
    with open(shared / "published" / "deo_supp_datasets.csv") as file:
        table = {(row["dataset"], row["metric"]): row["value"] for row in csv.DictReader(file)}
    compared = 0
    for name, card in CARDS.items():
        if (name, "classes") not in table:
            continue
        found = (f"{card.size}x{card.size}", str(card.num_classes), *map(str, card.splits), str(len(card.bands)))
        wanted = ("image size", "classes", "train", "val", "test", "bands")
        published = tuple(table[name, what] for what in wanted)
        assert found == published, name
        compared += 1
    assert compared == 8


def test_water_is_class_one_of_the_real_chesapeake_masks(shared):
    """The converter lists water at 0; in the masks water is 1: nothing else absorbs the near infrared like that."""
    import h5py
    import numpy as np

    infrared, visible, masks = [], [], []
    for path in sorted((shared / "data" / "geobench_samples" / "cvpr_chesapeake_landcover").glob("*.hdf5")):
        with h5py.File(path) as file:
            infrared.append(file["NearInfrared"][()])
            visible.append(file["Green"][()])
            masks.append(file["label"][()])
    ratio, mask = np.concatenate(infrared) / np.concatenate(visible), np.concatenate(masks)
    means = {int(value): float(ratio[mask == value].mean()) for value in np.unique(mask)}
    classes = CARDS["m-chesapeake-landcover"].classes
    assert classes[min(means, key=lambda value: means[value])] == "water"
    assert classes[max(means, key=lambda value: means[value])] == "tree-canopy-forest"
    assert 0 not in means
