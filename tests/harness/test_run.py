"""The main job on the synthetic twin: once, again, in parts, and killed."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support import ROOT

CHANCE = 0.1


def read(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def value(rows: list[dict[str, str]], **wanted: str) -> float:
    (row,) = [row for row in rows if all(row[name] == text for name, text in wanted.items())]
    return float(row["value"])


def test_the_demo_table_has_both_data_sets_and_the_control_beats_chance(harness, tmp_path):
    code, out, _ = harness("run", "--model", "imagestats", "--suite", "demo", "--runs", "R", "--out", "O", "--json")
    assert code == 0
    summary = json.loads(out.splitlines()[-1])
    assert (summary["computed"], summary["failures"], summary["skipped"]) == (6, [], [])
    rows = read(tmp_path / "O/demo.csv")
    assert value(rows, dataset="demo-change", task="change_detection", metric="f1_change") > 0.2  # all change: 0.19
    assert value(rows, dataset="demo-cashew", task="segmentation", metric="miou_macro_present_native") > 1 / 7
    assert value(rows, dataset="demo-eurosat", task="knn", metric="accuracy_k5_uniform") > 4 * CHANCE
    assert value(rows, dataset="demo-eurosat", task="linear_probe", metric="accuracy") > 5 * CHANCE
    assert value(rows, dataset="demo-eurosat", task="linear_probe", metric="accuracy_logistic") > 5 * CHANCE
    assert value(rows, dataset="demo-bigearthnet", task="linear_probe", metric="f1_micro") > 0.5
    assert {row["weights"] for row in rows} == {"none"}
    assert [row["metric"] for row in rows if row["primary"] == "true"] == [
        "f1_change",
        "miou_macro_present_native",
        "accuracy",
        "f1_micro",
    ]
    ranks = read(tmp_path / "O/demo_ranks.csv")
    assert [(row["model"], row["n_ms"]) for row in ranks] == [("imagestats:full", "4")]


def test_running_again_computes_nothing_and_writes_the_same_bytes(harness, tmp_path):
    command = ("run", "--model", "imagestats", "--suite", "demo", "--runs", "R", "--out", "O")
    assert harness(*command)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "O").iterdir()}
    code, out, _ = harness(*command)
    assert code == 0
    assert "0 runs computed, 6 already in the journal" in out
    assert "0 images encoded" in out
    assert {path.name: path.read_bytes() for path in (tmp_path / "O").iterdir()} == before
    assert harness("rank", "--suite", "demo", "--runs", "R", "--out", "P")[0] == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "P").iterdir()} == before


def test_every_fraction_seed_and_k_comes_from_one_pass_over_the_images(harness, tmp_path):
    base = (
        "run",
        "--model",
        "imagestats",
        "--dataset",
        "demo-eurosat",
        "--protocol",
        "demo",
        "--runs",
        "R",
        "--out",
        "O",
    )
    _, out, _ = harness(*base)
    first = int(out.split("failures; ")[1].split()[0])
    assert first > 0
    code, out, _ = harness(*base, "--train-fraction", "0.50,1.00", "--seeds", "0,1,2", "--set", "knn.k=1,3")
    assert code == 0
    assert "; 0 images encoded" in out
    rows = read(tmp_path / "O/custom.csv")
    assert {row["n_seeds"] for row in rows if row["task"] == "linear_probe" and row["metric"] == "accuracy"} == {"3"}
    assert {row["train_fraction"] for row in rows} == {"0.50x", "1.00x"}


def test_recomputing_from_stored_features_gives_the_numbers_of_a_fresh_extraction(harness, tmp_path):
    base = ("run", "--model", "imagestats", "--suite", "demo")
    harness(*base, "--runs", "A", "--out", "A", "--store", "S")
    harness(*base, "--runs", "B", "--out", "B", "--store", "S")  # another journal, the same store: nothing is encoded
    harness(*base, "--runs", "C", "--out", "C", "--store", "T", "--batch-size", "5")
    tables = [(tmp_path / folder / "demo.csv").read_bytes() for folder in "ABC"]
    assert tables[0] == tables[1] == tables[2]


def test_a_limited_run_is_marked_and_never_ranked_beside_a_full_one(harness, tmp_path):
    base = ("run", "--model", "imagestats", "--suite", "demo", "--runs", "R", "--out", "O")
    _, out, _ = harness(*base, "--limit", "40")
    assert "[limit 40]" in out
    harness(*base)
    rows = read(tmp_path / "O/demo.csv")
    assert {row["label"] for row in rows} == {"", "[limit 40]"}
    assert len(read(tmp_path / "O/demo_ranks.csv")) == 2


def test_the_verbose_run_prints_the_compiled_transform_and_the_corrected_names(harness):
    _, _, err = harness(
        "run", "--model", "deo", "--suite", "demo", "--limit", "12", "-v", "--task", "knn", "--set", "knn.k=1"
    )
    assert "S2:B8A <- S2:B8A" in err
    assert "divide S2:B04, S2:B03, S2:B02 by their joint maximum" in err
    assert "band names corrected" in err


def test_released_band_names_are_another_run_and_give_another_number(harness, tmp_path):
    base = (
        "run",
        "--model",
        "imagestats",
        "--dataset",
        "demo-eurosat",
        "--protocol",
        "demo",
        "--runs",
        "R",
        "--out",
        "O",
    )
    harness(*base)
    _, out, _ = harness(*base, "--set", "band_names=as-released")
    assert "0 already in the journal" in out
    assert any("band_names=as-released" in row["label"] for row in read(tmp_path / "O/custom.csv"))


def test_a_failing_data_set_is_recorded_and_the_others_go_on(harness, tmp_path, demo_data):
    toml = tmp_path / "broken.toml"
    for number in range(6):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(b"no image")
    toml.write_text(
        'name = "broken"\nlayout = "class-folders"\nbands = ["RGB:red", "RGB:green", "RGB:blue"]\nunit = "uint8"\n'
        'split = {rule = "every-nth", test = 3}\n'
    )
    code, out, err = harness(
        "run",
        "--model",
        "imagestats",
        "--dataset",
        f"{toml},demo-eurosat",
        "--protocol",
        "demo",
        "--runs",
        "R",
        "--out",
        "O",
    )
    assert code == 2
    assert err.count("harness: ") == 1
    assert "2 runs computed" in out


DRIVER = """
import os, random, signal, sys, time
from harness import run, table, verbs            # imported once: the children only compute
from harness.cli import main
arguments, attempts, longest, seed = sys.argv[5:], int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
generator = random.Random(seed)
killed = 0
for _ in range(attempts):
    child = os.fork()
    if child == 0:
        os.close(1); os.close(2); os.open(os.devnull, os.O_WRONLY); os.open(os.devnull, os.O_WRONLY)
        os._exit(main(arguments))
    time.sleep(generator.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
print(killed)
"""


def test_after_any_number_of_kills_the_same_rows_and_the_same_bytes(harness, tmp_path, demo_data):
    base = ["run", "--model", "imagestats", "--suite", "demo", "--batch-size", "1", "--protocol", "demo"]
    started = time.monotonic()
    harness(*base, "--runs", "whole", "--out", "whole")
    duration = time.monotonic() - started
    cut = [*base, "--runs", str(tmp_path / "cut"), "--out", str(tmp_path / "cut")]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "30", str(duration / 3), "0", "--", *cut],
        cwd=ROOT,
        env={**os.environ, "EO_HARNESS_DATA": str(demo_data), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) >= 10, "hardly any attempt was killed before its end"
    code, out, _ = harness(*cut)
    assert code == 0, out
    for name in ("demo.csv", "demo_ranks.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "cut").rglob("*.tmp"))
