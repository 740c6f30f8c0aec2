"""Does pretraining teach anything? k-NN accuracy of trained minus random features on real tiles, a command, no test.

    PYTHONPATH=. python tests/benchmarks/pretrain_small.py deo --shared ../shared/data --seeds 5
    PYTHONPATH=. python tests/benchmarks/pretrain_small.py xstars --shared ../shared/data --seeds 5 --steps 600

DEO (preset `base-ms`, scale `small`) trains on the 13-band EuroSAT tiles and the other Sentinel-2 scenes, X-STARS (preset
`cpu`, form `paper`) on EuroSAT's two versions as two sensors. Every third tile by name (of each class, as classes come one
after the other) is held back from training. The score is the mean k-NN accuracy of the protocol `clean` (weighted vote)
of the tiles held back, with the training tiles as the bank. The random network is the one that training starts from, of
the same seed, so that the difference is paired; its 95% interval is Student's over seeds. `effective_rank` of the
features of the tiles held back: exp of the entropy of their normalised singular values (`harness/pretraining/probe.py`).
Results, with settings, device and loss curve, are appended to pretrain_small.json beside this file.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness import provenance
from harness.pretraining.log import steps as curve_of
from harness.pretraining.methods import Asked, Prepared, prepare
from harness.pretraining.probe import effective_rank, encoder
from harness.pretraining.settings import Settings
from harness.pretraining.trainer import pretrain
from harness.progress import Progress
from tasks import knn
from tasks.common.splits import Split
from tasks.data.unlabelled.images import Images
from tasks.data.unlabelled.recognise import open_images, open_sensors
from tasks.protocols import PROTOCOLS

ROOT = Path(__file__).resolve().parents[2]
SCENES = ("s2_unlabelled", "s2_boadella", "sen1floods11/S2Hand")
RESULTS = Path(__file__).with_suffix(".json")
METRIC = "accuracy_mean_weighted"


def held_back(tiles: Images) -> set[str]:
    """Every third name, in the order of the names."""
    return set(sorted(tiles.names)[2::3])


def prepared(options: argparse.Namespace) -> tuple[Prepared, Images, Images]:
    """The method, what it trains on, and the labelled tiles."""
    shared: Path = options.shared
    if options.method == "deo":
        tiles = open_images([str(shared / "eurosat_ms")])
        data = [str(shared / "eurosat_ms"), *(str(shared / name) for name in SCENES)]
        words = {"preset": options.preset or "base-ms", "scale": options.scale}
    else:
        data = [f"sentinel={shared / 'eurosat_ms'}", f"eurosat_rgb={shared / 'eurosat_rgb'}"]
        tiles = open_sensors(data)
        words = {"preset": options.preset or "cpu"}
    asked = Asked(options.method, tuple(data), switches=tuple(options.switches), batch=options.batch, **words)
    method = prepare(asked, options.device.startswith("cuda"), ROOT)
    test = held_back(tiles)
    return method, method.images.subset(lambda name: name not in test), tiles


@torch.no_grad()
def score(method: Any, ready: Prepared, tiles: Images, device: torch.device) -> tuple[float, float]:
    """k-NN accuracy and effective rank on the tiles held back."""
    encode, sensor = encoder(method, device, ready.probe_sensor), "ms" if ready.multispectral else ready.probe_sensor
    images = torch.stack([torch.from_numpy(tiles[number][sensor]) for number in range(len(tiles))])
    features = torch.cat([encode(part) for part in images.split(64)]).float().cpu()
    classes = sorted({name.split("/")[0] for name in tiles.names})
    labels = torch.tensor([classes.index(name.split("/")[0]) for name in tiles.names])
    test = torch.tensor([name in held_back(tiles) for name in tiles.names])
    splits = []
    for chosen in (~test, test):
        names = tuple(name for name, wanted in zip(tiles.names, chosen.tolist(), strict=True) if wanted)
        splits.append(Split(features[chosen], labels[chosen], names))
    result = knn.evaluate(splits[0], splits[1], splits[1], len(classes), False, PROTOCOLS["clean"].knn)
    return result.metrics[METRIC], effective_rank(features[test])


def paired(differences: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences and the ends of its 95% interval (Student)."""
    from scipy.stats import t

    mean = statistics.mean(differences)
    half = float(t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("deo", "xstars"))
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data", help="the folder of data sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="instead of the preset's epochs")
    parser.add_argument("--preset")
    parser.add_argument("--scale", default="small")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--set", dest="switches", action="append", default=[], metavar="SWITCH=VALUE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("an interval needs two seeds")
    device = torch.device(options.device)
    ready, images, tiles = prepared(options)
    rows, curves = [], []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        method = ready.build().to(device)
        random = score(method, ready, tiles, device)
        settings = Settings(
            name=options.method,
            recipe=ready.recipe,
            steps=options.steps,
            seed=seed,
            device=options.device,
            workers=options.workers,
            repeats=ready.repeats,
        )
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            outcome = pretrain(method, images, settings, Path(out), progress=Progress(quiet=True))
            curve = [line["loss"] for line in curve_of(Path(out))]
        seconds = time.perf_counter() - began
        trained = score(method, ready, tiles, device)
        rows.append({"seed": seed, "random": random, "trained": trained, "seconds": round(seconds, 1)})
        curves.append(curve[:: max(1, len(curve) // 50)])
        print(
            f"seed {seed}: accuracy {random[0]:.4f} -> {trained[0]:.4f}, effective rank {random[1]:.1f} -> {trained[1]:.1f}, "
            f"loss {curve[0]:.4f} -> {curve[-1]:.4f}, {seconds:.0f} s",
            flush=True,
        )
    mean, low, high = paired([row["trained"][0] - row["random"][0] for row in rows])
    print(f"{options.method}: trained minus random {mean:+.4f} [{low:+.4f}, {high:+.4f}] over {options.seeds} seeds")
    record = {
        "method": options.method,
        "recipe": json.loads(json.dumps(asdict(ready.recipe))),
        "data": images.layout,
        "digest": images.digest,
        "steps": outcome.steps,
        "metric": METRIC,
        "columns": ["accuracy", "effective_rank"],
        "rows": rows,
        "difference": {"mean": mean, "low": low, "high": high},
        "curves": curves,
        **provenance.machine(options.device),
    }
    known = json.loads(options.results.read_text()) if options.results.is_file() else []
    options.results.write_text(json.dumps([*known, record], indent=1) + "\n")


if __name__ == "__main__":
    main()
