"""Dense tasks from the command line: their rows, their provenance, their pictures, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

BASE = ("--protocol", "demo", "--runs", "R", "--out", "O")


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / "R/records").glob("*.json"))]


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype) as file:
        file.write(pixels)


def folder_of_masks(folder: Path, side: int = 32, images: int = 12, top: int = 2, **lines: str) -> Path:
    """Images whose bright half is class 1, and a description; returns the description's path."""
    rng = np.random.default_rng(0)
    for number in range(images):
        bright = np.zeros((side, side), dtype=np.uint8)
        bright[:, : side // 2] = 1
        image = (np.where(bright, 200, 60) + rng.integers(0, 20, (3, side, side))).astype(np.uint8)
        write(folder / "image" / f"{number:02d}.tif", image)
        write(folder / "mask" / f"{number:02d}.tif", (bright * (top - 1))[None])
    text = {
        "name": '"halves"',
        "layout": '"image-mask"',
        "images": '"image"',
        "masks": '"mask"',
        "classes": '["dark", "bright"]',
        "bands": '["RGB:red", "RGB:green", "RGB:blue"]',
        "unit": '"uint8"',
        "split": '{rule = "every-nth", test = 3, val = 4}',
    } | lines
    path = folder / "halves.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in text.items()))
    return path


def test_a_frozen_run_records_an_unchanged_backbone_and_a_fine_tuned_one_a_changed(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data")
    base = ("run", "--model", "xstars:tiny", "--weights", "random", "--dataset", path, *BASE)
    assert harness(*base, "--set", "segmentation.epochs=2")[0] == 0
    (frozen,) = records(tmp_path)
    assert frozen["provenance"]["backbone_before"] == frozen["provenance"]["backbone_after"]
    assert frozen["provenance"]["stage_store_error"]["maximum"] < 1e-3
    tuned = ("segmentation.epochs=2", "segmentation.backbone=finetuned", "segmentation.learning_rates=1e-3")
    assert harness(*base, *(word for switch in tuned for word in ("--set", switch)))[0] == 0
    tuned = next(
        record for record in records(tmp_path) if record["identity"]["switches"]["segmentation.backbone"] != "frozen"
    )
    assert tuned["provenance"]["backbone_before"] == frozen["provenance"]["backbone_before"]
    assert tuned["provenance"]["backbone_after"] != tuned["provenance"]["backbone_before"]
    assert any("fine-tunes the backbone" in line for line in tuned["provenance"]["warnings"])


def test_every_variant_of_the_score_is_a_row_with_an_interval(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data")
    assert harness("run", "--model", "imagestats", "--dataset", path, *BASE)[0] == 0
    with open(tmp_path / "O/custom.csv") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert {"miou_macro_present_native", "miou_macro_zero_native", "iou_micro_native", "iou_1_bright_native"} <= set(
        rows
    )
    assert float(rows["miou_macro_present_native"]["value"]) > 0.6
    assert all(row["ci_low"] and row["ci_high"] for row in rows.values())


def test_panels_and_features_of_all_models_are_drawn(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data")
    command = ("run", "--model", "imagestats,seco", "--weights", "random", "--dataset", path, *BASE, "--panels", "2")
    code, out, _ = harness(*command)
    assert code == 0
    drawn = sorted((tmp_path / "O/pictures").iterdir())
    assert [name.name.split("_")[1] for name in drawn] == ["features.png", "segmentation", "segmentation"]
    assert out.count("picture: ") == 3


def test_a_protocol_that_augments_says_why_it_stores_nothing(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data")
    code, out, _ = harness(
        *("run", "--model", "imagestats", "--dataset", path, *BASE),
        *("--set", "segmentation.augmentation=flips", "--set", "segmentation.epochs=2"),
    )
    assert code == 0
    assert "training features are not stored: the protocol augments images (flips)" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top": 4}, "holds 3; classes are 0, 1"),
        ({"images": 3}, "the val split is empty"),
    ],
)
def test_masks_that_do_not_fit_their_description_are_one_line(harness, tmp_path, change, words):
    path = folder_of_masks(tmp_path / "data", **change)
    code, _, err = harness("run", "--model", "imagestats", "--dataset", path, *BASE)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_a_mask_of_another_size_and_pairs_of_other_sizes_are_one_line(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data")
    write(tmp_path / "data/mask/03.tif", np.zeros((1, 30, 32), dtype=np.uint8))
    code, _, err = harness("run", "--model", "imagestats", "--dataset", path, *BASE)
    assert code == 2
    assert "03.tif" in err
    assert "30x32" in err


def test_an_image_smaller_than_the_patch_is_brought_to_it_and_the_row_says_so(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data", side=10)
    command = ("run", "--model", "xstars:tiny", "--weights", "random", "--dataset", path, *BASE)
    code, _, _ = harness(*command, "--set", "segmentation.head=linear")
    assert code == 0
    (record,) = records(tmp_path)
    assert any("16" in line for line in record["provenance"]["transform"])


def test_a_store_limit_that_is_no_size_is_refused_before_anything_runs(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data")
    code, _, err = harness("run", "--model", "imagestats", "--dataset", path, *BASE, "--store-limit", "plenty")
    assert code == 2
    assert "'plenty' is no size" in err


def test_maps_above_the_store_limit_are_encoded_anew_and_the_row_says_so(harness, tmp_path):
    path = folder_of_masks(tmp_path / "data")
    code, out, _ = harness("run", "--model", "imagestats", "--dataset", path, *BASE, "--store-limit", "1kB")
    assert code == 0
    assert "stage maps are not stored" in out
