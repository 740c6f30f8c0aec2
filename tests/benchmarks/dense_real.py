"""Heads on real images beside the trivial answers: `PYTHONPATH=. python tests/benchmarks/dense_real.py [--models M ...]`.

Needs the folder `shared` beside the repository. Trains UPerNet-lite on frozen features of the control `imagestats` and of
random backbones, three seeds each, and prints mean and standard deviation beside what needs no training: everything
background, the majority class, the modified water index above 0 (Xu, 2006; water), and the absolute difference of the dates
above the threshold that is best on the training pairs (change). All numbers are over all pixels of the test split.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from tasks.common.confusion import change_scores, segmentation_scores
from tasks.data import folder
from tasks.data.dataset import usable

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "water_hls12": "iou_1_water_native",
    "buildings_oam": "iou_1_building_native",
    "clcd": "f1_change",
    "levir_cd_samples": "f1_change",
}
HEAD = "head=upernet-lite epochs=40 learning_rates=1e-3,1e-2 batch=8"


def counts(predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Confusion of one image, (2, 2)."""
    return np.array([[((label == row) & (predicted == column)).sum() for column in (0, 1)] for row in (0, 1)])


def trivial(name: str, path: Path) -> dict[str, float]:
    """The metric of every answer that needs no features, by its name."""
    data = folder.open_dataset(folder.card(path), path)
    data = usable(data, [band.name for band in data.card.bands])
    test, metric = data.splits["test"], SETS[name]
    labels = {image: data.label(image) for image in (*data.splits["train"], *test)}

    def score(predict, images=test) -> float:
        found = np.stack([counts(predict(image), labels[image]) for image in images])
        scores = change_scores(found) if data.card.label == "change" else segmentation_scores(found, data.card.classes)
        return scores.get(metric, 0.0)

    majority = int(np.mean([labels[image].mean() for image in data.splits["train"]]) > 0.5)
    answers = {
        "all background": score(lambda image: np.zeros_like(labels[image])),
        "all foreground": score(lambda image: np.ones_like(labels[image])),
        f"majority class ({data.card.classes[majority]})": score(lambda image: np.full_like(labels[image], majority)),
    }
    if name == "water_hls12":

        def index(image: str) -> np.ndarray:
            green, swir = data.read(image, ["L8:B3", "L8:B6"]).astype(float)
            return (
                np.divide(green - swir, green + swir, out=np.zeros_like(green), where=green + swir != 0) > 0
            ).astype(int)

        answers["MNDWI > 0"] = score(index)
    if data.card.label == "change":

        def distance(image: str) -> np.ndarray:
            before, after = data.read(image, ["RGB:red", "RGB:green", "RGB:blue"]).astype(float)
            return np.abs(before - after).mean(axis=0)

        train = data.splits["train"]
        best = max(range(5, 160, 5), key=lambda t: score(lambda image: (distance(image) > t).astype(int), train))
        answers[f"absolute difference > {best} (best on train)"] = score(
            lambda image: (distance(image) > best).astype(int)
        )
    return answers


def trained(name: str, path: Path, models: list[str], seeds: str, out: Path) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over seeds of the metric, by model."""
    task = "change_detection" if SETS[name] == "f1_change" else "segmentation"
    found: dict[str, tuple[float, float]] = {}
    for model in models:
        weights = [] if model == "imagestats" else ["--weights", "random"]
        sets = [part for switch in HEAD.split() for part in ("--set", f"{task}.{switch}")]
        command = [sys.executable, "-m", "harness", "run", "--model", model, "--dataset", str(path), "--seeds", seeds]
        command += [*weights, *sets, "--runs", str(out / name / "runs"), "--out", str(out / name), "--panels", "3"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rows = defaultdict(list)
    with (out / name / "custom.csv").open() as file:
        for row in csv.DictReader(file):
            if row["metric"] == SETS[name]:
                rows[f"{row['model']}:{row['variant']}"].append((float(row["value"]), float(row["std"] or 0)))
    for model, values in rows.items():
        found[model] = statistics.fmean(value for value, _ in values), max(std for _, std in values)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["imagestats", "xstars:tiny", "deo"])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "dense_real")
    options = parser.parse_args()
    print("| data set | metric | answer | value |\n| --- | --- | --- | --- |")
    for name in options.sets:
        path = ROOT / "tests" / "data_sets" / f"{name}.toml"
        for answer, value in trivial(name, path).items():
            print(f"| {name} | {SETS[name]} | {answer} | {value:.3f} |", flush=True)
        for model, (mean, std) in trained(name, path, options.models, options.seeds, options.out).items():
            print(f"| {name} | {SETS[name]} | UPerNet-lite on {model} | {mean:.3f} ± {std:.3f} |", flush=True)


if __name__ == "__main__":
    main()
