"""Mistakes the caller can mend: one clear line, exit code 2, nothing half-written."""

import json
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

RUN = ("run", "--runs", "R", "--out", "O", "--task", "knn")
DEMO = (*RUN, "--suite", "demo")


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, one line that starts with `harness:` and holds every word, and no traceback."""
    code, out, err = result
    complaints = [line for line in err.splitlines() if line.startswith("harness:")]
    assert code == 2, err
    assert len(complaints) == 1, err
    assert "Traceback" not in err + out
    for word in words:
        assert word in complaints[0], complaints[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*DEMO, "--model", "dino2"), ("no model 'dino2'", "did you mean 'dinov2'?")),
        ((*DEMO, "--model", "deo:swim"), ("no variant of deo 'swim'", "did you mean 'swin'?")),
        ((*RUN, "--suite", "geobnch", "--model", "deo"), ("no suite 'geobnch'", "did you mean 'geobench'?")),
        ((*RUN, "--dataset", "m-eurosta", "--model", "deo"), ("no data set 'm-eurosta'", "did you mean 'm-eurosat'?")),
        ((*DEMO, "--model", "deo", "--protocol", "claen"), ("no protocol 'claen'", "did you mean 'clean'?")),
        ((*DEMO, "--model", "deo", "--device", "cdua"), ("no device 'cdua'", "did you mean 'cuda'?")),
        ((*DEMO, "--model", "deo", "--device", "cuda:99"), ("--device cuda:99", "--device cpu")),
        ((*DEMO, "--model", "deo", "--precision", "fp61"), ("no precision 'fp61'", "did you mean 'fp16'?")),
        ((*DEMO, "--model", "deo", "--task", "knnn"), ("no task 'knnn'", "did you mean 'knn'?")),
        ((*DEMO, "--model", "deo", "--set", "knn.distanse=cosine"), ("no switch", "did you mean 'knn.distance'?")),
        ((*DEMO, "--model", "deo", "--set", "knn.distance=cosin"), ("did you mean 'cosine'?",)),
        ((*DEMO, "--model", "deo", "--set", "linear_probe.epochs=ten"), ("linear_probe.epochs=ten",)),
        ((*DEMO, "--model", "deo", "--limit", "0"), ("--limit 0",)),
        ((*DEMO, "--model", "deo", "--train-fraction", "1.5"), ("--train-fraction 1.5",)),
        ((*DEMO, "--model", "deo", "--lable", "x"), ("'--lable'", "did you mean '--label'?")),
        ((*DEMO, "--model", "no/such/file.py"), ("no adapter file",)),
        ((*RUN, "--dataset", "no/such.toml", "--model", "deo"), ("no data-set description",)),
        ((*DEMO, "--model", "deo,dinov2", "--weights", "w.pth"), ("one model's checkpoint",)),
        ((*DEMO, "--model", "deo", "--weights", "absent.pth"), ("absent.pth",)),
        ((*DEMO,), ("--model is missing",)),
        ((*RUN, "--model", "deo"), ("--suite or --dataset",)),
        (("rnu",), ("no command 'rnu'", "did you mean 'run'?")),
        (("list", "modles"), ("did you mean 'models'?",)),
        (("rank", "--suite", "demo", "--runs", "nowhere"), ("no journal in nowhere",)),
        (("verify", "deo", "--kits", "nowhere"), ("nowhere",)),
        (("data", "fetch", "m-eurosatt"), ("did you mean 'm-eurosat'?",)),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else None,
)
def test_a_wrong_word_is_answered_with_the_nearest_right_one(harness, tmp_path, arguments, words):
    refused(harness(*arguments), *words)
    assert not (tmp_path / "O").exists()
    assert not list((tmp_path / "R").rglob("*.json")) if (tmp_path / "R").exists() else True


def test_gated_weights_say_which_file_to_put_where(harness):
    refused(
        harness(*DEMO, "--model", "dinov3", "--weights", "official"),
        "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
        "--weights random",
    )


def test_without_a_network_the_line_says_where_the_file_can_be_put_by_hand(harness):
    refused(
        harness(*DEMO, "--model", "dinov2", "--weights", "official"), "dinov2_vitb14_pretrain.pth", "--weights random"
    )


class Payload:
    """A pickle that would create a file if anything in it were executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def write_checkpoint(kind: str, path: Path, marker: Path) -> None:
    from models import build

    state = build("deo", "random", path.parent).state_dict() if kind in ("missing", "shape", "truncated") else {}
    match kind:
        case "another":
            torch.save({"blocks.0.norm1.weight": torch.ones(768), "cls_token": torch.zeros(1, 1, 768)}, path)
        case "missing":
            torch.save({name: value for name, value in state.items() if not name.startswith("norm.")}, path)
        case "shape":
            torch.save(state | {"norm.weight": torch.ones(7)}, path)
        case "truncated":
            torch.save(state, path)
            path.write_bytes(path.read_bytes()[:100_000])
        case "malicious":
            torch.save({"student": Payload(marker)}, path)
        case "malicious-plain":
            path.write_bytes(pickle.dumps(Payload(marker)))
        case "page":
            path.write_text("<!DOCTYPE html><html>Sign in to download</html>")


@pytest.mark.parametrize("kind", ["another", "missing", "shape", "truncated", "malicious", "malicious-plain", "page"])
def test_a_checkpoint_that_is_none_of_this_model_is_refused_and_never_executed(harness, tmp_path, kind):
    marker = tmp_path / "executed"
    write_checkpoint(kind, tmp_path / "w.pth", marker)
    refused(harness(*DEMO, "--model", "deo", "--weights", "w.pth"), "deo")
    assert not marker.exists()


@pytest.fixture
def eurosat(tmp_path, demo_data) -> Path:
    """A copy of the demo's 13-band set to break, under a data root of its own."""
    shutil.copytree(demo_data / "twin/classification_v1.0/m-eurosat", tmp_path / "D/classification_v1.0/m-eurosat")
    return tmp_path / "D/classification_v1.0/m-eurosat"


def spoil(kind: str, folder: Path, marker: Path) -> str:
    """Break one thing and return a word that the complaint must hold."""
    partition = json.loads((folder / "default_partition.json").read_text())
    path = folder / f"{partition['test'][0]}.hdf5"
    match kind:
        case "truncated":
            path.write_bytes(path.read_bytes()[:5000])
        case "band":
            with h5py.File(path, "a") as file:
                del file["04 - Red"]
        case "size":
            with h5py.File(path, "a") as file:
                del file["04 - Red"]
                file["04 - Red"] = np.ones((32, 32), np.int16)
        case "dtype":
            with h5py.File(path, "a") as file:
                del file["04 - Red"]
                file["04 - Red"] = np.full((64, 64), b"x")
        case "pickle":
            with h5py.File(path, "a") as file:
                file.attrs["pickle"] = str(pickle.dumps(Payload(marker)))
        case "label":
            with h5py.File(path, "a") as file:
                file.attrs["pickle"] = str(pickle.dumps({"label": 99, "bands_order": []}))
        case "absent":
            partition["train"].append("id_9999")
            (folder / "default_partition.json").write_text(json.dumps(partition))
            return "id_9999"
        case "empty":
            partition["valid"] = []
            (folder / "default_partition.json").write_text(json.dumps(partition))
            return "empty"
    return path.name


@pytest.mark.parametrize("kind", ["truncated", "band", "size", "dtype", "pickle", "label", "absent", "empty"])
def test_a_broken_data_set_is_refused_by_file_and_recorded_as_a_failure(harness, tmp_path, eurosat, kind):
    word = spoil(kind, eurosat, tmp_path / "executed")
    result = harness(*RUN, "--dataset", "m-eurosat", "--data-root", "D", "--model", "imagestats")
    refused(result, word)
    assert not (tmp_path / "executed").exists()
    records = [json.loads(path.read_text()) for path in (tmp_path / "R/records").glob("*.json")]
    assert [record["status"] for record in records] == ["failed"]
    assert word in records[0]["reason"]
    assert not (tmp_path / "O").exists()


def test_nan_pixels_are_a_warning_in_the_row_and_an_error_under_strict(harness, tmp_path, eurosat):
    partition = json.loads((eurosat / "default_partition.json").read_text())
    with h5py.File(eurosat / f"{partition['test'][0]}.hdf5", "a") as file:
        pixels = file["04 - Red"][()].astype(np.float32)
        pixels[:3] = np.nan
        del file["04 - Red"]
        file["04 - Red"] = pixels
    command = (*RUN, "--dataset", "m-eurosat", "--data-root", "D", "--model", "imagestats")
    refused(harness(*command, "--strict"), "S2:B04", "--strict")
    code, out, _ = harness(*command)
    assert code == 0
    assert "warning: m-eurosat: S2:B04: non-finite pixels in 1 of 140 images" in out
    records = [json.loads(path.read_text()) for path in (tmp_path / "R/records").glob("????????????????.json")]
    done = [record for record in records if record["status"] == "ok"]
    assert "non-finite" in " ".join(done[0]["provenance"]["warnings"])


def test_a_journal_of_a_newer_schema_is_not_touched(harness, tmp_path):
    assert harness(*DEMO, "--model", "imagestats")[0] == 0
    path = next((tmp_path / "R/records").glob("*.json"))
    record = json.loads(path.read_text())
    record["schema"] += 1
    path.write_text(json.dumps(record))
    before = path.read_bytes()
    refused(harness(*DEMO, "--model", "imagestats"), "newer", "upgrade")
    assert path.read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(harness, tmp_path, monkeypatch):
    import os

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    refused(harness(*DEMO, "--model", "imagestats"), "space")
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.csv"))


def test_a_suite_of_which_nothing_is_here_lists_its_skips_and_then_one_line(harness, tmp_path):
    result = harness("run", "--model", "imagestats", "--suite", "geobench", "--data-root", tmp_path / "empty")
    refused(result, "nothing to run: all 11 cells of geobench are skipped")
    assert "m-so2sat: not on this machine; `python -m harness data fetch m-so2sat`" in result[2]
