"""The engine on a method of a few parameters: killed and resumed, on two processes, into folders and disks that refuse."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.pretraining.data import Item, Loader, StepBatches, generator
from harness.pretraining.log import lines, steps
from models.common.errors import UserError
from models.common.weights import read
from tests.harness.pretraining.toy import Noise, Toy, ToyRecipe, train
from tests.support import ROOT

TOY = [str(ROOT / "tests/harness/pretraining/toy.py")]


def start(*arguments: str, launcher: tuple[str, ...] = (), **words: str) -> subprocess.CompletedProcess[str]:
    """The toy in a process of its own, or in torchrun's; `words` enter its environment."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | words
    command = [sys.executable, *launcher, *TOY, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in steps(out)]


def test_after_a_kill_in_the_middle_of_a_step_the_curve_and_the_product_are_the_undisturbed_ones(tmp_path: Path):
    train(tmp_path / "whole", steps=20, save_every=3)
    killed = start(str(tmp_path / "killed"), "--kill-at", "13")
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "killed/toy.pth").exists()
    _, outcome = train(tmp_path / "killed", steps=20, save_every=3)
    assert outcome.resumed_from == 12
    assert [line["step"] for line in steps(tmp_path / "killed")] == list(range(20))
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-7)
    one, two = (read(tmp_path / name / "toy.pth")["student"] for name in ("whole", "killed"))
    assert all(torch.allclose(one[name], two[name], atol=1e-7) for name in one)


def test_two_processes_make_the_curve_of_one_with_the_same_batch(tmp_path: Path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = start(str(tmp_path / "two"), "--steps", "8", "--dropout", "0", "--launcher", "pytorch", launcher=torchrun)
    assert done.returncode == 0, done.stderr
    train(tmp_path / "one", ToyRecipe(dropout=0.0), steps=8)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-6)
    assert json.loads((tmp_path / "two/provenance.json").read_text())["processes"] == 2


def test_slurms_words_are_understood(tmp_path: Path):
    slurm = {
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_LOCALID": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "0",
    }
    done = start(str(tmp_path), "--steps", "2", "--launcher", "slurm", **slurm)
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path)) == 2


def test_accumulated_parts_and_workers_make_the_same_curve(tmp_path: Path):
    recipe = ToyRecipe(dropout=0.0)
    train(tmp_path / "whole", recipe, steps=6)
    train(tmp_path / "parts", recipe, steps=6, accumulate=4, workers=2)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)


def test_views_made_on_the_device_are_those_of_the_workers():
    method, batches = Toy(ToyRecipe()), [StepBatches(40, 8, 1, 3, 0) for _ in range(2)]
    device = torch.device("cpu")
    loaders = [
        Loader(Noise(), method, plan, 0, device, there) for plan, there in zip(batches, (False, True), strict=True)
    ]
    for one, two in zip(*loaders, strict=True):
        assert torch.equal(one["views"], two["views"])


def test_the_loss_falls_and_what_no_group_holds_stays(tmp_path: Path):
    torch.manual_seed(0)
    before = Toy(ToyRecipe()).unused.weight.detach().clone()
    method, outcome = train(tmp_path, steps=20)
    curve = losses(tmp_path)
    assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:5])
    assert torch.equal(method.unused.weight, before)
    assert outcome.losses["loss"] == pytest.approx(np.mean(curve))


def test_the_curve_has_schedules_throughput_and_memory_of_every_step(tmp_path: Path):
    train(tmp_path, steps=10)
    line = steps(tmp_path)[2]
    wanted = {"learning_rate", "weight_decay", "images_per_second", "memory_mb", "loss/distance", "loss/size"}
    assert wanted <= set(line)
    # 40 images in batches of 8: of 10 steps (2 of 4 epochs' worth) a quarter, rounded, warms up to 1.0 * 8 / 256.
    assert line["learning_rate"] == pytest.approx(8 / 256)
    assert (tmp_path / "tensorboard").is_dir()
    assert "step 10/10" in next((tmp_path / "log").rglob("*.log")).read_text()


def test_the_product_says_what_it_is_and_the_last_two_checkpoints_stay(tmp_path: Path):
    _, outcome = train(tmp_path, steps=10, save_every=2, seed=3)
    content = read(outcome.checkpoint)
    assert json.loads(content["pretraining"])["seed"] == 3
    facts = json.loads(outcome.provenance.read_text())
    assert facts["steps"] == 10
    assert facts["data"] == Noise().digest
    assert facts["recipe"]["learning_rate"] == 1.0
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert set(facts["final_losses"]) == {"loss", "loss/distance", "loss/size"}
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["step-00000008.pth", "step-00000010.pth"]


def test_a_finished_training_started_again_does_nothing_new(tmp_path: Path):
    train(tmp_path, steps=4)
    curve = (tmp_path / "curve.jsonl").read_text()
    _, outcome = train(tmp_path, steps=4)
    assert outcome.resumed_from == 4
    assert (tmp_path / "curve.jsonl").read_text() == curve


def test_a_folder_of_another_recipe_is_refused_by_what_differs(tmp_path: Path):
    train(tmp_path, steps=4)
    with pytest.raises(UserError, match=r"another recipe \(seed: 0, now 1; clip: 3.0, now 1.0\)"):
        train(tmp_path, replace(ToyRecipe(), clip=1.0), steps=4, seed=1)


def test_what_ended_before_its_first_checkpoint_gives_the_folder_up(tmp_path: Path):
    start(str(tmp_path), "--kill-at", "1")
    _, outcome = train(tmp_path, steps=4, seed=1)
    assert outcome.resumed_from == 0
    assert len(steps(tmp_path)) == 4


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 100, 100))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"need .* GB, 0.00 GB are free"):
        train(tmp_path, steps=4)
    assert not (tmp_path / "curve.jsonl").exists()


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path):
    import fcntl

    with open(tmp_path / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is training"):
            train(tmp_path, steps=4)


def test_a_loss_that_is_no_number_stops_with_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    forward = Toy.forward
    monkeypatch.setattr(
        Toy,
        "forward",
        lambda self, views, place: {k: v / (place.step != 3) for k, v in forward(self, views, place).items()},
    )
    with pytest.raises(UserError, match="the loss is inf at step 3"):
        train(tmp_path, steps=6)
    assert len(lines(tmp_path)) == 4


def test_an_unreadable_image_stops_with_its_sentence_from_a_worker_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self: Noise, number: int) -> dict[str, np.ndarray]:
        raise UserError("image 7 cannot be read")

    monkeypatch.setattr(Noise, "__getitem__", broken)
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^image 7 cannot be read$"):
            train(tmp_path / str(workers), steps=4, workers=workers)


def test_an_epoch_is_a_permutation_keyed_by_seed_and_epoch():
    plan = StepBatches(items=41, batch=8, accumulate=1, total=15, seed=5)
    first, second = (np.concatenate([plan.step(5 * epoch + place) for place in range(5)]) for epoch in range(2))
    assert len(set(first)) == 40
    assert not np.array_equal(first, second)
    assert np.array_equal(first, np.random.default_rng([5, 0]).permutation(41)[:40])


def test_processes_and_parts_share_a_step_without_gap_or_overlap():
    plans = [StepBatches(40, 8, 2, 1, 0, rank, 2) for rank in range(2)]
    one, two = (list(plan) for plan in plans)
    whole = StepBatches(40, 8, 1, 1, 0).step(0)
    # The first part is the first half of the batch, and of it each process has one half.
    assert [item.number for part in (one[0], two[0], one[1], two[1]) for item in part] == list(whole)


def test_resumed_batches_are_those_that_were_left():
    plan = StepBatches(40, 8, 2, 6, 0)
    everything = list(plan)
    plan.start = 4
    assert list(plan) == everything[8:]


def test_the_chance_of_an_item_depends_on_seed_epoch_and_number():
    draws = {
        float(torch.rand((), generator=generator(*key))) for key in [(0, Item(0, 1)), (0, Item(1, 0)), (1, Item(0, 0))]
    }
    assert len(draws) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [((40, 9, 2, 1, 0), "does not divide into 2 part"), ((7, 8, 1, 1, 0), "fewer than the 8 of a batch")],
)
def test_batches_that_cannot_be_are_refused(arguments: tuple[int, ...], sentence: str):
    with pytest.raises(UserError, match=sentence):
        StepBatches(*arguments)
