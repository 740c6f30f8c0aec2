"""The switches of X-STARS: the authors' statistics, the rows of their tables, and what is refused."""

import csv
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import models
from models.common.errors import UserError
from models.pretraining.xstars_recipe import PRESETS, SHORT, Sensor, XstarsRecipe, recipe

ROOT = Path(__file__).resolve().parents[3]


# The code's README command for Sentinel-2 with Landsat-8, and its argument defaults.
AUTHORS = {
    ("sentinel", "landsat"): ((0.15590523, 0.15850738, 0.10111853), (0.14238988, 0.11567883, 0.0910672)),
    ("spot", "sentinel", "landsat"): ((0.30631185, 0.34405161, 0.23653328), (0.16821284, 0.14533219, 0.16300538)),
}


@pytest.mark.parametrize("sensors", AUTHORS)
def test_joint_statistics_of_the_sensors_are_those_that_the_code_is_started_with(sensors: tuple[str, ...]):
    joint = XstarsRecipe(sensors=sensors).joint()
    assert joint.mean == pytest.approx(AUTHORS[sensors][0], abs=2e-8)
    assert joint.std == pytest.approx(AUTHORS[sensors][1], abs=2e-8)


def test_joint_statistics_of_one_sensor_are_its_own():
    single = recipe("table5-s2")
    assert single.joint().mean == pytest.approx(single.sensor("sentinel").mean)
    assert single.joint().std == pytest.approx(single.sensor("sentinel").std)


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_stands_in_both_forms_and_names_an_adapter(preset: str, form: str):
    found = recipe(preset, form)
    assert found.recipe == form
    assert found.msad in (form, "off")
    assert models.card(found.adapter)


def test_paper_and_release_differ_in_these_switches_and_no_others():
    paper, released = asdict(recipe("s2-ls", "paper")), asdict(recipe("s2-ls", "released"))
    assert {name: (paper[name], released[name]) for name in paper if paper[name] != released[name]} == {
        "recipe": ("paper", "released"),
        "msad": ("paper", "released"),
        "msad_gradient": (True, False),
        "msad_temperature": (0.1, 1.0),
        "pair_reduction": ("mean", "sum"),
        "scene_normalisation": ("once", "twice"),
        "domain_teacher_drop_path": (False, True),
    }


def test_the_five_rows_of_table_2_differ_in_msad_patches_and_smoothing():
    rows = [recipe(f"table2-{name}") for name in ("no-msad", "msad", "msad-pw", "msad-ls", "msad-pw-ls")]
    assert [row.msad == "paper" for row in rows] == [False, True, True, True, True]
    assert [row.patchwise for row in rows[1:]] == [False, True, False, True]
    assert [row.label_smoothing for row in rows[1:]] == [0, 0, 0.3, 0.3]
    assert {(row.adapter, row.batch, row.epochs, row.sensors) for row in rows} == {
        ("xstars:tiny", 128, 400, ("sentinel", "landsat"))
    }


def test_the_published_rows_of_tables_4_and_5_all_have_a_preset(shared: Path):
    names = set()
    with open(shared / "published" / "xstars_tables2_8.csv", newline="") as file:
        for row in csv.DictReader(file):
            words = row["model"].replace(",", "").split()
            if row["table"] == "IV":
                sensors, with_msad, epochs = words[2].lower(), words[4] == "yes", words[5]
                ending = "" if with_msad else {"400": "-no-msad", "800": "-no-msad-800"}[epochs]
                names.add((f"table4-{sensors}{ending}", with_msad, int(epochs)))
            elif row["table"] == "V":
                source, target = words[3].lower(), words[8].lower()
                names.add((f"table5-{source}" + ("" if target == "none" else f"-{target}"), target != "none", 400))
    assert len(names) == 24
    for name, with_msad, epochs in names:
        found = recipe(name)
        assert (found.msad != "off", found.epochs, found.architecture) == (with_msad, epochs, "vit_tiny")
        assert set(found.sensors) == {SHORT[part] for part in name.split("-")[1:] if part in SHORT}


def test_table_3_changes_the_input_and_keeps_the_table_of_positions():
    assert [recipe(f"table3-{size}").input_size for size in (100, 224, 300)] == [100, 224, 300]
    assert {recipe(f"table3-{size}").position_grid for size in (100, 224, 300)} == {14}
    assert recipe("cpu").position_grid == 8


def test_the_continual_mode_trains_on_the_target_and_aligns_both():
    found = recipe("s2-to-s6")
    assert found.crop_sensors == ("spot",)
    assert found.scene_sensors == ("sentinel", "spot")
    assert recipe("s2-to-s6", target="landsat").scene_sensors == ("sentinel", "landsat")
    assert recipe("s2-ls", mode="continual", source="spot", target="spot").scene_sensors == ("spot",)
    control = recipe("table5-ls-ls")
    assert control.crop_sensors == control.scene_sensors == ("landsat",)
    assert recipe("table5-ls").scene_sensors == ()


def test_statistics_of_other_sensors_are_given():
    aerial = Sensor("bdortho", (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), 1250)
    found = recipe("s2-ls", sensors=("spot", "bdortho"), statistics=(aerial,))
    assert found.sensor("bdortho") == aerial
    assert 0.31 < found.joint().mean[0] < 0.4


REFUSED = {
    "unknown preset": ({"preset": "s2-lt"}, "no preset of xstars 's2-lt', did you mean 's2-ls'"),
    "unknown form": ({"form": "published"}, "no recipe 'published'"),
    "unknown switch": ({"momentum": 0.9}, "no switch of xstars 'momentum'"),
    "unknown value": ({"msad": "on"}, "no msad 'on'"),
    "unknown sensor": (
        {"sensors": ("sentinel", "landsat9")},
        "no sensor with known statistics 'landsat9', did you mean",
    ),
    "one sensor aligned": ({"sensors": ("sentinel",)}, "MSAD aligns two or three sensors, not sentinel alone"),
    "no sensors": ({"sensors": (), "msad": "off"}, "sensors are none"),
    "twice the same": ({"sensors": ("spot", "spot")}, "name each once"),
    "source from scratch": ({"source": "spot"}, "belong to continual pretraining"),
    "continual without source": ({"mode": "continual", "target": "spot"}, "name both"),
    "three sensors continued": (
        {"mode": "continual", "source": "spot", "target": "landsat", "sensors": ("spot", "landsat", "sentinel")},
        "has these sensors, not spot, landsat, sentinel",
    ),
    "heads": ({"architecture": "vit", "width": 192, "heads": 6}, "has 3 heads of 64 channels, not 6"),
    "three blocks": ({"architecture": "vit", "depth": 3}, "cannot give the four stages"),
    "views below a patch": ({"local_size": 8}, "views of 8 pixels are smaller than a patch of 16"),
    "negative": ({"msad_weight": -1}, "msad_weight is -1; it must not be negative"),
    "zero": ({"msad_temperature": 0}, "msad_temperature is 0; it must be above 0"),
    "share": ({"label_smoothing": 1.5}, r"label_smoothing is 1.5; it must lie in 0\.\.1"),
    "range": ({"local_scale": (0.4, 0.05)}, "the smaller number first"),
    "groups": ({"groups": 3}, "a batch of 256 does not divide into 3 groups"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_is_refused_with_a_sentence(what: str):
    settings, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        recipe(**settings)


def test_a_recipe_needs_neither_torch_nor_timm():
    code = (
        "import sys\nfrom models.pretraining.xstars_recipe import recipe\nrecipe('cpu')\n"
        "print([heavy for heavy in ('torch', 'timm', 'torchvision', 'numpy') if heavy in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
