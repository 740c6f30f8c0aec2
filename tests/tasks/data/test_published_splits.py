"""Every data set of DEO's Tables 12 to 14 against our cards: split sizes, classes, bands, and what the paper leaves open."""

import csv
from pathlib import Path

from tasks.data import catalogue

NAMES = {"m-cashew-plantation": "m-cashew-plantation", "SpaceNetv1": "spacenet1", "Sen1Floods11": "sen1floods11"}
NAMES |= {"PASTIS": "pastis", "LEVIR-CD": "levir-cd", "OSCD": "oscd"}
# By (data set, property): what is printed, what our card says, and why they differ.
OPEN = {
    ("SpaceNetv1", "train"): ("5000", "4999", "the authors' code takes 4999; the splits are not published"),
    ("SpaceNetv1", "test"): ("1000", "941", "the authors' code takes all that is left of 6940"),
    ("SpaceNetv1", "image size"): ("224x224", "439x439", "they resample what they read: a switch of the protocol"),
    ("OSCD", "val"): ("none", "0", "no validation split is published; ours is cut from train"),
    ("OSCD", "bands"): ("10", "13", "the files hold thirteen; ten are read, those of the model"),
    ("Sen1Floods11", "classes"): ("3", "2", "they count no data as a class, and ignore it"),
    ("Sen1Floods11", "bands"): ("13", "15", "the two of Sentinel-1 are declared as well"),
    ("m-cashew-plantation", "bands"): ("13", "13", "with the cloud probability; B10 is not in the files"),
    ("m-SA-crop-type", "bands"): ("13", "13", "with the cloud probability; B10 is not in the files"),
    ("m-so2sat", "RGB resolution (m)"): ("1.0", "10.0", "as printed; the pixels are 10 m"),
}


def rows(shared: Path) -> list[dict[str, str]]:
    with open(shared / "published" / "deo_supp_datasets.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_our_cards_say_what_the_paper_prints_and_every_difference_has_its_reason(shared):
    differing = {}
    for row in rows(shared):
        card = catalogue.card(NAMES.get(row["dataset"], row["dataset"]))
        train, val, test = card.splits
        ours = {
            "image size": f"{card.size}x{card.size}",
            "classes": str(card.num_classes),
            "train": str(train),
            "val": str(val),
            "test": str(test),
            "bands": str(len(card.bands)),
            "RGB resolution (m)": f"{card.gsd:.1f}",
        }.get(row["metric"])
        if ours is not None and ours != row["value"]:
            differing[row["dataset"], row["metric"]] = (row["value"], ours)
    stated = {key: (printed, ours) for key, (printed, ours, _) in OPEN.items() if printed != ours}
    assert differing == stated


def test_all_thirteen_sets_are_there_in_their_group(shared):
    groups = {row["dataset"]: row["modality"] for row in rows(shared)}
    assert len(groups) == 13
    for name, group in groups.items():
        assert catalogue.card(NAMES.get(name, name)).modality == {"RGB": "optical", "MS": "ms"}[group]


def test_sets_outside_geobench_say_whose_splits_they_have():
    for name in ("spacenet1", "sen1floods11", "pastis", "levir-cd", "oscd"):
        card = catalogue.card(name)
        assert card.split_note
        assert card.licence
        assert card.citation
        assert card.origin


def test_published_checksums_are_those_of_torchgeo():
    from torchgeo.datasets import LEVIRCD, OSCD, PASTIS, SpaceNet1

    theirs = {
        "levir-cd": {entry["filename"]: f"md5:{entry['md5']}" for entry in LEVIRCD.splits.values()},
        "oscd": {name: f"sha256:{value}" for name, value in OSCD.sha256s.items()},
        "pastis": {PASTIS.filename: f"md5:{PASTIS.md5}"},
        "spacenet1": {
            name: f"md5:{value}"
            for name, value in zip(SpaceNet1.tarballs["train"][1], SpaceNet1.md5s["train"][1], strict=True)
        },
    }
    assert {name: dict(catalogue.card(name).checksums) for name in theirs} == theirs
