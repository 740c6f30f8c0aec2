"""The cards of the X-STARS sets against its table VIII: what is equal, and what the paper leaves open."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from tasks.data import spacenet8
from tasks.data.xstars_cards import XSTARS_CARDS

NAMES = {
    "EuroSAT": "eurosat-rgb",
    "Worldstrat": "worldstrat",
    "UC-Merced": "uc-merced",
    "CV-BrCT": "cv-brct",
    "FLAIR": "flair",
    "SpaceNet8": "spacenet8",
    "Chesapeake (CLC, Landsat-8)": "chesapeake-landsat8",
}
SCENES = 599  # labelled scenes of Louisiana-East


def table_8(shared: Path) -> dict[tuple[str, str], str]:
    with (shared / "published" / "xstars_tables2_8.csv").open(newline="") as file:
        return {
            (NAMES[row["dataset"]], row["metric"]): row["value"]
            for row in csv.DictReader(file)
            if row["table"] == "VIII"
        }


def test_cards_agree_with_table_8_where_the_paper_can_be_met(shared: Path):
    differs = {}
    for (name, what), printed in table_8(shared).items():
        card = XSTARS_CARDS[name]
        ours = {
            "patch size (px)": card.size,
            "GSD (m)": card.gsd,
            "classes": card.num_classes,
            "images": SCENES * spacenet8.TILES**2 if name == "spacenet8" else sum(card.splits),
        }[what]
        if f"{ours:g}" != printed:
            differs[name, what] = (ours, printed)
    assert differs == {
        ("worldstrat", "images"): (3819, "3823"),
        ("cv-brct", "GSD (m)"): (0.3, "0.3-4800"),
        ("cv-brct", "images"): (0, "24000"),
        ("flair", "classes"): (13, "14"),
        ("flair", "images"): (0, "21396"),
        ("chesapeake-landsat8", "images"): (0, "731"),
    }


def test_what_the_paper_leaves_open_is_said_in_the_card(shared: Path):
    printed = table_8(shared)
    for name in ("worldstrat", "cv-brct", "flair", "spacenet8", "chesapeake-landsat8"):
        assert printed[name, "images"] in XSTARS_CARDS[name].split_note
    for name in ("uc-merced", "cv-brct", "spacenet8"):
        assert XSTARS_CARDS[name].split_note.startswith("Ours: X-STARS")


def test_spacenet8_tiles_fill_a_scene_as_the_paper_counts_them():
    assert spacenet8.SCENE // XSTARS_CARDS["spacenet8"].size == spacenet8.TILES
    assert SCENES * spacenet8.TILES**2 == 14975


def test_every_card_names_licence_citation_origin_and_layout():
    assert list(XSTARS_CARDS) == list(NAMES.values())
    for card in XSTARS_CARDS.values():
        assert all((card.licence, card.citation, card.origin, card.notes, card.split_note)), card.name
        assert [band.name.partition(":")[2] for band in card.bands] in (["red", "green", "blue"], ["B2", "B3", "B4"])
        assert len(set(card.classes)) == card.num_classes


def test_cards_need_no_heavy_import():
    code = "import json, sys; import tasks.data.xstars_cards; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"numpy", "torch", "rasterio"} & set(loaded)
