"""`pretrain` from the command line: real images in, a checkpoint that the adapters take out; wrong words in, one line out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from harness.pretraining.log import steps
from harness.pretraining.methods import value_of
from models.common.backbone import Batch
from models.common.errors import UserError
from models.deo import MEAN, STD
from models.pretraining.deo_views import scale_to_maximum
from models.pretraining.views import normalise
from tasks.data import scenes
from tests.support import ROOT

Call = Callable[..., tuple[int, str, str]]
TINY_DEO = ("--set", "global_size=32", "--set", "local_size=16", "--set", "local_views=2", "--set", "width=8")
TINY_XSTARS = ("--set", "input_size=32", "--set", "local_size=16", "--set", "local_crops=2", "--set", "prototypes=64")
QUICK = ("--batch", "8", "--steps", "3", "--probe", "none", "--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen procedural scenes of 32 pixels, 13 bands, in class folders; and their red, green, blue as bytes."""
    import rasterio

    root, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    options = {"driver": "GTiff", "width": 32, "height": 32}
    for number in range(16):
        name = ("Forest", "River")[number % 2]
        image = scenes.expose(rng, scenes.land_use(rng, name, 32)).astype("uint16")
        for folder, bands in (("ms", image), ("rgb", np.clip(image[[3, 2, 1]] / 3000 * 255, 0, 255).astype("uint8"))):
            path = root / folder / name / f"{name}_{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(path, "w", count=len(bands), dtype=bands.dtype.name, **options) as target:
                target.write(bands)
    return root


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def deo(tiles: Path, out: Path, *more: str) -> tuple[str, ...]:
    return (
        "pretrain",
        "deo",
        "--preset",
        "base-ms",
        "--data",
        str(tiles / "ms"),
        "--out",
        str(out),
        *TINY_DEO,
        *QUICK,
        *more,
    )


def test_deos_checkpoint_goes_into_its_adapter_whose_features_are_the_students(
    harness: Call, tiles: Path, tmp_path: Path
):
    from models.pretraining.deo import DeoPretraining
    from models.pretraining.deo_recipe import recipe

    code, out, err = harness(*deo(tiles, tmp_path / "out"))
    assert code == 0, err
    assert f"--model deo --weights {tmp_path / 'out/deo.pth'}" in out
    backbone = models.build("deo", str(tmp_path / "out/deo.pth"))
    made = recipe("base-ms", "paper", "small", global_size=32, local_size=16, local_views=2, width=8, batch=8)
    method = DeoPretraining(made)
    state = torch.load(tmp_path / "out/state/step-00000003.pth", weights_only=True)
    method.load_state_dict(state["method"])
    images = torch.rand(2, 10, 32, 32, generator=torch.Generator().manual_seed(0)) * 3000
    rgb = torch.stack([scale_to_maximum(image) for image in images[:, :3]])
    batch = Batch({"optical": normalise(torch.cat([rgb, images[:, 3:]], dim=1), MEAN, STD)}, "ms")
    with torch.no_grad():
        assert torch.allclose(backbone(batch).pooled, method.probe_features(images), atol=1e-5)


def test_deos_checkpoint_is_measured_with_its_provenance(harness: Call, tiles: Path, tmp_path: Path):
    assert harness(*deo(tiles, tmp_path / "out"))[0] == 0
    weights = str(tmp_path / "out/deo.pth")
    code, out, err = harness(
        "run", "--model", "deo", "--weights", weights, "--suite", "demo", "--task", "knn", "--limit", "30"
    )
    assert code == 0, err
    assert "deo" in out
    facts = json.loads((tmp_path / "out/provenance.json").read_text())
    assert (facts["method"], facts["steps"], facts["recipe"]["name"]) == ("deo", 3, "base-ms")
    assert facts["checkpoint_sha256"][:8] in (tmp_path / "leaderboards/demo.csv").read_text()


def test_xstars_checkpoint_goes_into_its_adapter_whose_features_are_the_teachers(
    harness: Call, tiles: Path, tmp_path: Path
):
    from models.pretraining.xstars import XstarsPretraining
    from models.pretraining.xstars_recipe import Sensor, recipe

    data = ("--data", f"sentinel={tiles / 'ms'}", f"landsat={tiles / 'rgb'}")
    code, out, err = harness("pretrain", "xstars", *data, "--out", str(tmp_path / "out"), *TINY_XSTARS, *QUICK)
    assert code == 0, err
    assert "--model xstars:vit" in out
    backbone = models.build("xstars:vit", str(tmp_path / "out/xstars.pth"))
    facts = json.loads((tmp_path / "out/provenance.json").read_text())["recipe"]
    made = recipe(
        "cpu",
        "paper",
        input_size=32,
        local_size=16,
        local_crops=2,
        prototypes=64,
        batch=8,
        statistics=tuple(Sensor(*entry) for entry in facts["statistics"]),
    )
    assert (made.sensors, made.statistics) == (("sentinel", "landsat"), ())
    method = XstarsPretraining(made)
    method.load_state_dict(torch.load(tmp_path / "out/state/step-00000003.pth", weights_only=True)["method"])
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    joint = made.joint()
    with torch.no_grad():
        pooled = backbone(Batch({"optical": normalise(images, joint.mean, joint.std)}, "rgb")).pooled
    assert torch.allclose(pooled, method.probe_features(images, "sentinel"), atol=1e-5)


@pytest.mark.parametrize("covariance", ["groups", "all_reduced"])
def test_deo_on_two_processes_makes_the_curve_of_one(harness: Call, tiles: Path, tmp_path: Path, covariance: str):
    switches = {
        "groups": ("--set", "groups=2"),
        "all_reduced": ("--set", "covariance=all_reduced", "--set", "groups=1"),
    }
    code, _, err = harness(*deo(tiles, tmp_path / "one", *switches[covariance]))
    assert code == 0, err
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "harness"]
    two = deo(tiles, tmp_path / "two", *switches[covariance], "--launcher", "pytorch")
    done = subprocess.run(
        [*torchrun, *two],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    curves = [[(line["loss"], line["loss/coding_rate"]) for line in steps(tmp_path / name)] for name in ("one", "two")]
    assert np.allclose(*curves, atol=2e-5)


@pytest.mark.parametrize("method", ["deo", "xstars"])
def test_the_methods_go_on_from_a_checkpoint_as_if_nothing_had_been(
    harness: Call, tiles: Path, tmp_path: Path, method: str
):
    words = deo(tiles, tmp_path / "out", "--save-every", "1")
    if method == "xstars":
        data = ("--data", f"sentinel={tiles / 'ms'}", f"landsat={tiles / 'rgb'}", "--set", "drop_path=0.2")
        words = ("pretrain", "xstars", *data, "--out", str(tmp_path / "out"), *TINY_XSTARS, *QUICK, "--save-every", "1")
    assert harness(*words)[0] == 0
    before = [line["loss"] for line in steps(tmp_path / "out")]
    weights = torch.load(tmp_path / f"out/{method}.pth", weights_only=True)["student"]
    for name in (f"{method}.pth", "provenance.json", "state/step-00000003.pth"):
        (tmp_path / "out" / name).unlink()
    code, _, err = harness(*words)
    assert code == 0, err
    assert "going on from step 2 of 3" in err
    assert [line["loss"] for line in steps(tmp_path / "out")] == pytest.approx(before, abs=1e-6)
    again = torch.load(tmp_path / f"out/{method}.pth", weights_only=True)["student"]
    assert all(torch.allclose(again[name], weights[name], atol=1e-6) for name in weights)


def test_the_probe_sees_the_checkpoint_that_run_will_measure(harness: Call, tiles: Path, tmp_path: Path):
    probed = [word for word in deo(tiles, tmp_path / "out") if word not in ("--probe", "none")]
    code, _, err = harness(*probed, "--probe-every", "2")
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "out/curve.jsonl").read_text().splitlines()]
    scores = [(line["step"], line["probe"]) for line in lines if "probe" in line]
    assert [step for step, _ in scores] == [-1, 1, 2]
    weights = ("--weights", str(tmp_path / "out/deo.pth"))
    assert harness("run", "--model", "deo", *weights, "--dataset", "demo-eurosat", "--task", "knn")[0] == 0
    rows = (tmp_path / "leaderboards/custom.csv").read_text().splitlines()
    name = rows[0].split(",")
    value = next(row for row in rows[1:] if "accuracy_mean_weighted" in row).split(",")[name.index("value")]
    # Other batches round features differently, so that a vote or two of 40 images and four k may tip over.
    assert scores[-1][1]["accuracy_mean_weighted"] == pytest.approx(float(value), abs=0.02)


def test_a_plan_says_recipe_schedules_memory_and_time_and_writes_nothing(harness: Call, tiles: Path, tmp_path: Path):
    code, out, err = harness(*deo(tiles, tmp_path / "out", "--plan"))
    assert code == 0, err
    for word in ("eps=0.5", "distill=none", "schedules:", "memory:", "GB per process", "s per step", "calibrated"):
        assert word in out
    table = out.split("weight decay\n")[1].split("memory:")[0].split()
    assert table[::3] == ["0", "1", "2"]  # five points of three steps are three
    assert not (tmp_path / "out").exists()


def test_paper_and_release_are_both_reachable(harness: Call, tiles: Path, tmp_path: Path):
    plans = [harness(*deo(tiles, tmp_path / "out", "--recipe", form, "--plan"))[1] for form in ("paper", "released")]
    assert "eps=0.5 " in plans[0]
    assert "eps=0.05 " in plans[1]
    assert "teacher_drop_path=True" in plans[1]


WRONG = [
    (("--preset", "base-sm"), "did you mean 'base-ms'"),
    (("--set", "esp=0.05"), "no switch of deo 'esp', did you mean 'eps'"),
    (("--set", "eps=large"), "--set eps=large: eps is a number, 0.5 by default"),
    (("--set", "eps"), "write SWITCH=VALUE"),
    (("--precision", "fp61"), "no precision 'fp61', did you mean 'fp16'"),
    (("--precision", "fp16"), "fp16 needs a GPU"),
    (("--preset", "full"), "no optical teacher dinov3"),
    (("--preset", "full", "--teacher", "dinov3", "--teacher-weights", "absent.pth"), "there is no file absent.pth"),
    (("--teacher-weights", "a.pth"), "has no use without a teacher"),
    (("--init", "mae"), "--init belongs to xstars"),
    (("--accumulate", "3"), "does not divide into 3 part(s)"),
    (("--accumulate", "0"), "--accumulate 0 is below 1"),
    (("--batch", "64"), "fewer than the 64 of a batch"),
    (("--epochs", "2"), "--steps and --epochs both"),
    (("--launcher", "slurm"), "finds no SLURM_PROCID"),
    (("--launcher", "pytorch"), "torchrun"),
    (("--probe", "demo-eurosta"), "did you mean 'demo-eurosat'"),
    (("--probe", "demo-cashew"), "has masks, no classes"),
    (("--rgb-share", "2"), "--rgb-share 2 is no share"),
    (("--device", "gpu"), "no device 'gpu'"),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words_get_one_line_and_leave_no_checkpoint(
    harness: Call, tiles: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
):
    code, _, err = harness(*deo(tiles, tmp_path / "out", *words))
    assert code == 2
    complaint = err.splitlines()[-1]
    assert complaint.startswith("harness: ")
    assert sentence in complaint
    assert not list(tmp_path.glob("out/**/*.pth"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("xstars", "--data", "{ms}", "--teacher", "dinov3"), "no optical teacher"),
        (("xstars", "--data", "{ms}"), "MSAD aligns two or three sensors"),
        (("xstars", "--data", "{ms}", "{rgb}", "--set", "sensors=ms,spot"), "no sensor in the data 'spot'"),
        (("xstars", "--data", "{ms}", "{rgb}", "--init-weights", "a.pth"), "--init says of which model"),
        (("deo", "--data", "{rgb}", "--teacher", "none"), "only RGB images"),
        (("dea", "--data", "{ms}"), "did you mean 'deo'"),
    ],
)
def test_what_the_methods_cannot_do_is_said(
    harness: Call, tiles: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
):
    filled = [word.format(ms=tiles / "ms", rgb=tiles / "rgb") for word in words]
    code, _, err = harness("pretrain", *filled, "--out", str(tmp_path / "out"), *QUICK)
    assert code == 2
    assert sentence in err.splitlines()[-1]


def test_continual_pretraining_starts_from_an_adapters_weights(harness: Call, tiles: Path, tmp_path: Path):
    data = ("--data", f"sentinel={tiles / 'ms'}", f"landsat={tiles / 'rgb'}")
    continual = ("--set", "mode=continual", "--set", "source=sentinel", "--set", "target=landsat")
    code, _, err = harness("pretrain", "xstars", *data, "--out", str(tmp_path / "a"), *TINY_XSTARS, *QUICK, *continual)
    assert code == 2
    assert "--init MODEL" in err
    assert harness("pretrain", "xstars", *data, "--out", str(tmp_path / "a"), *TINY_XSTARS, *QUICK)[0] == 0
    start = ("--init", "xstars:vit", "--init-weights", str(tmp_path / "a/xstars.pth"))
    code, _, err = harness(
        "pretrain", "xstars", *data, "--out", str(tmp_path / "b"), *TINY_XSTARS, *QUICK, *continual, *start
    )
    assert code == 0, err
    facts = json.loads((tmp_path / "b/provenance.json").read_text())
    assert facts["init_weights"] == json.loads((tmp_path / "a/provenance.json").read_text())["checkpoint_sha256"]


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("on", False, True),
        ("3", 1, 3),
        ("1e-3", 0.5, 1e-3),
        ("a", "b", "a"),
        ("1,2", (0.0, 0.5), (1.0, 2.0)),
        ("x,y", ("a",), ("x", "y")),
    ],
)
def test_a_switch_takes_the_kind_of_its_default(text: str, default: object, value: object):
    assert value_of("some", text, default) == value


def test_a_switch_of_two_numbers_refuses_three():
    with pytest.raises(UserError, match="2 values with commas"):
        value_of("ema", "1,2,3", (0.0, 1.0))
