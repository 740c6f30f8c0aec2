import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from leaderboards.results import Identity, Journal, JournalError, Record

ROOT = Path(__file__).resolve().parents[2]
ARRAYS = {"label": np.array([0, 1, 2]), "prediction": np.array([0, 1, 1])}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "runs")


def files(journal: Journal) -> list[str]:
    """Everything in the journal but its lock."""
    return sorted(path.name for path in journal.folder.iterdir() if path.name != ".lock")


def test_the_run_id_is_the_hash_of_the_canonical_json(identity: Identity) -> None:
    text = (
        '{"card_revision":1,"dataset":"m-eurosat","dataset_version":"v1","draw":0,"limit":null,"mode":"ms","model":"deo",'
        '"precision":"fp32","protocol":"clean","seed":0,"split_digest":"s1","switches":{"a":0.1,"b":[1,2]},'
        '"task":"linear_probe","train_fraction":"1.00x","variant":"swin","weights":"none"}'
    )
    changed = replace(identity, weights="none", switches={"b": (1, 2), "a": 0.1})
    assert changed.run_id == sha256(text.encode()).hexdigest()[:16]


def test_equal_meaning_has_an_equal_run_id(identity: Identity) -> None:
    first = replace(identity, switches={"knn.k": (5, 10), "knn.temperature": 1.0, "by": {"y": 2, "x": 1}})
    second = replace(identity, switches={"by": {"x": 1, "y": 2.0}, "knn.temperature": 1, "knn.k": [5, 10]})
    assert first == second
    assert hash(first) == hash(second)
    assert first.run_id == second.run_id


@pytest.mark.parametrize("name", [field.name for field in fields(Identity)])
def test_every_field_of_the_identity_changes_the_run_id(name: str, identity: Identity) -> None:
    value = getattr(identity, name)
    other = {**value, "one_more": True} if name == "switches" else 7 if name in ("seed", "limit") else f"{value}9"
    assert replace(identity, **{name: other}).run_id != identity.run_id


@pytest.mark.parametrize("value", [0.30000000000000004, None, "0.3", True, [0.3], {"x": 0.3}])
def test_a_switch_of_another_value_changes_the_run_id(value: object, identity: Identity) -> None:
    assert replace(identity, switches={"rate": 0.3}).run_id != replace(identity, switches={"rate": value}).run_id


def test_only_seed_and_draw_leave_the_row_id_alone(identity: Identity) -> None:
    changes = {"seed": 3, "draw": 2, "limit": 8, "precision": "bf16"}
    same = {name for name, value in changes.items() if replace(identity, **{name: value}).row_id == identity.row_id}
    assert same == {"seed", "draw"}


def test_a_record_comes_back_as_it_went_in(journal: Journal, record: Callable[..., Record]) -> None:
    kept = record(0.9, label="größer")
    assert journal.append(kept, ARRAYS)
    (found,) = journal.records()
    assert found == replace(kept, arrays=("label", "prediction"))
    arrays = journal.samples(found)
    assert {name: array.tolist() for name, array in arrays.items()} == {"label": [0, 1, 2], "prediction": [0, 1, 1]}
    assert files(journal) == [f"{kept.identity.run_id}.json", f"{kept.identity.run_id}.npz"]


def test_the_file_of_a_record_is_plain_json(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(0.9), ARRAYS)
    facts = json.loads(next(journal.folder.glob("*.json")).read_text())
    assert facts["schema"] == 1
    assert facts["run_id"] == record().identity.run_id
    assert facts["identity"]["switches"] == {"linear_probe.batch": 64, "linear_probe.standardise": "train"}
    assert (facts["status"], facts["metrics"], facts["primary"], facts["modality"]) == (
        "ok",
        {"accuracy": 0.9},
        "accuracy",
        "ms",
    )


def test_runs_of_the_same_content_differ_in_provenance_only(journal: Journal, record: Callable[..., Record]) -> None:
    first = json.loads(record(0.9).to_json())
    second = json.loads(record(0.9, provenance={"seconds": 99.0}).to_json())
    assert {name for name in first if first[name] != second[name]} == {"provenance"}


def test_a_journal_that_does_not_exist_yet_is_empty(journal: Journal) -> None:
    assert journal.records() == []
    assert journal.done() == set()
    assert not journal.folder.exists()


def test_records_come_in_one_order_however_they_were_written(tmp_path: Path, record: Callable[..., Record]) -> None:
    runs = [record(seed=seed) for seed in range(12)]
    orders = []
    for number in range(3):
        random.Random(number).shuffle(runs)
        journal = Journal(tmp_path / str(number))
        for run in runs:
            journal.append(run)
        orders.append([found.identity.seed for found in journal.records()])
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == list(range(12))


def test_an_ok_record_is_not_overwritten(journal: Journal, record: Callable[..., Record]) -> None:
    assert journal.append(record(0.9), ARRAYS)
    assert not journal.append(record(0.1))
    assert [found.metrics["accuracy"] for found in journal.records()] == [0.9]
    assert len(files(journal)) == 2


def test_force_supersedes_and_keeps_the_older_with_its_arrays(journal: Journal, record: Callable[..., Record]) -> None:
    run_id = record().identity.run_id
    for step in range(3):
        assert journal.append(record(step / 10), {"label": np.array([step])}, force=True)
    (found,) = journal.records()
    assert found.metrics["accuracy"] == 0.2
    assert journal.samples(found)["label"].tolist() == [2]
    for number in (1, 2):
        older = json.loads((journal.folder / f"{run_id}.{number}.json").read_text())
        assert older["metrics"]["accuracy"] == (number - 1) / 10
        assert np.load(journal.folder / f"{run_id}.{number}.npz")["label"].tolist() == [number - 1]
    assert len(files(journal)) == 6


def test_a_forced_run_without_arrays_does_not_inherit_the_older_ones(
    journal: Journal, record: Callable[..., Record]
) -> None:
    run_id = record().identity.run_id
    journal.append(record(0.9), ARRAYS)
    journal.append(record(0.8), force=True)
    assert files(journal) == [f"{run_id}.1.json", f"{run_id}.1.npz", f"{run_id}.json"]


def test_a_failed_run_is_not_done_and_a_later_ok_one_supersedes_it(
    journal: Journal, record: Callable[..., Record]
) -> None:
    failed = record(status="failed", metrics={}, primary="", reason="out of memory")
    journal.append(failed)
    assert journal.done() == set()
    assert [found.reason for found in journal.records()] == ["out of memory"]
    assert journal.append(record(0.9), ARRAYS)
    assert journal.done() == {failed.identity.run_id}
    assert json.loads((journal.folder / f"{failed.identity.run_id}.1.json").read_text())["reason"] == "out of memory"


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_never_displaces_an_ok_record_but_is_kept(
    force: bool, journal: Journal, record: Callable[..., Record]
) -> None:
    journal.append(record(0.9), ARRAYS)
    assert not journal.append(record(status="failed", metrics={}, primary="", reason="broken disk"), force=force)
    assert [found.status for found in journal.records()] == ["ok"]
    assert json.loads((journal.folder / f"{record().identity.run_id}.1.json").read_text())["reason"] == "broken disk"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": {"accuracy": float("nan")}}, "accuracy is nan"),
        ({"metrics": {"accuracy": 0.5, "map": float("inf")}}, "map is inf"),
        ({"primary": "f1_micro"}, "primary metric 'f1_micro' is not among the metrics (accuracy)"),
        ({"status": "failed"}, "needs its reason"),
        ({"status": "half"}, "neither ok nor failed"),
    ],
)
def test_what_cannot_be_a_record_is_refused(
    changes: dict[str, object], words: str, journal: Journal, record: Callable[..., Record]
) -> None:
    with pytest.raises(JournalError) as caught:
        journal.append(record(**changes), ARRAYS)
    assert words in str(caught.value)
    assert not journal.folder.exists()


def test_arrays_that_only_a_pickle_could_keep_are_refused(journal: Journal, record: Callable[..., Record]) -> None:
    with pytest.raises(TypeError, match="'names' holds Python objects"):
        journal.append(record(), {"names": np.array([{}, ()], dtype=object)})
    assert not journal.folder.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "5",
        lambda text: text.replace('"metrics"', '"metric"'),
        lambda text: text.replace('"schema": 1', '"schema": 0'),
        lambda text: text.replace('"schema": 1', '"schema": "one"'),
        lambda text: text.replace('"m-eurosat"', '"m-so2sat"'),
        lambda text: text.replace("0.9", "NaN"),
        lambda text: "\x00" * len(text),
    ],
)
def test_a_damaged_file_is_named_with_its_remedy(
    damage: Callable[[str], str], journal: Journal, record: Callable[..., Record]
) -> None:
    journal.append(record(0.9))
    path = journal.folder / f"{record().identity.run_id}.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(JournalError) as caught:
        journal.records()
    assert str(path) in str(caught.value) or record().identity.run_id in str(caught.value)


def test_a_truncated_file_is_said_to_be_damaged(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(0.9))
    path = next(journal.folder.glob("*.json"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(JournalError, match=r"\.json is damaged .*: delete it, and the run will be done again"):
        journal.done()


def test_a_newer_schema_asks_for_an_upgrade(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(0.9))
    path = next(journal.folder.glob("*.json"))
    newer = json.loads(path.read_text()) | {"schema": 2, "something": "else"}
    path.write_text(json.dumps(newer))
    with pytest.raises(JournalError, match=r"newer eo-harness \(schema 2, here 1\): upgrade eo-harness"):
        journal.records()


@pytest.mark.parametrize("damage", ["truncate", "remove", "empty"])
def test_damaged_arrays_are_named_with_their_remedy(
    damage: str, journal: Journal, record: Callable[..., Record]
) -> None:
    journal.append(record(0.9), ARRAYS)
    path = next(journal.folder.glob("*.npz"))
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "truncate" else b"")
    with pytest.raises(JournalError, match=r"\.npz is damaged or missing .* delete it and .*\.json"):
        journal.samples(journal.records()[0])


def test_a_runs_folder_that_is_a_file_is_a_mistake_the_caller_can_mend(
    tmp_path: Path, record: Callable[..., Record]
) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(JournalError, match=r"cannot write .* choose a folder that can be written"):
        Journal(tmp_path / "runs").append(record())


def test_writers_of_one_record_do_not_lose_each_other(journal: Journal, record: Callable[..., Record]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda step: journal.append(record(step / 64), {"step": np.array([step])}, force=True), range(32))
        )
    texts = [json.loads(path.read_text()) for path in journal.folder.glob("*.json")]
    assert sorted(round(text["metrics"]["accuracy"] * 64) for text in texts) == list(range(32))


def test_leftovers_of_a_killed_writer_are_ignored_and_swept(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(seed=1))
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    name, node = f"{record().identity.run_id}.json", os.uname().nodename
    dead = journal.folder / f".{name}.{node}.{int(child.stdout)}.tmp"
    alive = journal.folder / f".{name}.{node}.{os.getppid()}.tmp"
    for path in (dead, alive):
        path.write_text('{"sche')
    assert len(journal.records()) == 1
    journal.append(record())
    assert len(journal.records()) == 2
    assert not dead.exists()
    assert alive.exists()  # its writer may still be at work


WRITERS = """
import os, sys
import numpy as np
from leaderboards.results import Identity, Journal, Record

def write_for_ever(attempt):
    journal = Journal(sys.argv[1])
    for step in range(attempt * 10**6, (attempt + 1) * 10**6):
        seed = step % 3
        identity = Identity("a", "", "none", 1, "ms", "b", "v", "s", "knn", "clean", {}, "1.00x", 0, seed, None, "fp32")
        journal.append(Record(identity, "ok", {"step": step}, "step"), {"step": np.full(1000, step)}, force=True)
        os.write(1, f"{step}\\n".encode())  # in one piece: a kill must not part the number from its line's end

for attempt, go in enumerate(sys.stdin):  # forked, so that each is past its imports at once
    writer = os.fork()
    if not writer:
        print(os.getpid(), flush=True)
        write_for_ever(attempt)
    os.waitpid(writer, 0)
    print("killed", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_records_with_their_own_arrays(tmp_path: Path) -> None:
    generator, journal = random.Random(0), Journal(tmp_path)
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    said: list[int] = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for _ in range(20):
            parent.stdin.write("go\n")
            writer = int(parent.stdout.readline())
            said += [int(parent.stdout.readline()) for _ in range(generator.randint(1, 5))]
            time.sleep(generator.uniform(0, 0.02))
            os.kill(writer, signal.SIGKILL)
            said += [int(line) for line in iter(parent.stdout.readline, "killed\n")]
            steps = [whole(path) for path in journal.folder.glob("*.json")]
            assert len(steps) == len(set(steps))
            assert set(said) <= set(steps)  # what was reported as kept is kept
        parent.stdin.close()
    assert journal.records()  # one that was being superseded may be missing: it would be done again


def whole(path: Path) -> int:
    """Check one record, current or old, with its arrays; its step."""
    record = Record.from_json(path.read_text(), path)
    steps = np.load(path.with_suffix(".npz"))["step"]
    assert record.arrays == ("step",)
    assert steps.shape == (1000,)
    assert (steps == record.metrics["step"]).all()
    return int(record.metrics["step"])


@pytest.mark.parametrize("refused", range(1, 7))  # a forced run goes through fsync six times
def test_a_disk_that_fills_up_at_any_write_leaves_nothing_half_written(
    refused: int, journal: Journal, record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(record(0.9), ARRAYS)
    before = {path.name: path.read_bytes() for path in journal.folder.iterdir()}
    calls, fsync = 0, os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JournalError, match="no space left; free some space or choose another folder"):
        journal.append(record(0.8), ARRAYS, force=True)
    monkeypatch.undo()
    after = {path.name: path.read_bytes() for path in journal.folder.iterdir()}
    assert not [name for name in after if name.endswith(".tmp")]
    assert set(before.values()) <= set(after.values())  # the older run is still there, under its own or its old name
    for path in journal.folder.glob("*.json"):
        facts = Record.from_json(path.read_text(), path)
        assert set(np.load(path.with_suffix(".npz"))) == set(facts.arrays)


def test_a_disk_that_is_really_full_leaves_nothing_half_written(tmp_path: Path, record: Callable[..., Record]) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        journal, noise = Journal(tmp_path), np.random.default_rng(0).bytes(12_000)
        runs = (journal.append(record(seed=seed), {"noise": np.frombuffer(noise, np.uint8)}) for seed in range(100))
        with pytest.raises(JournalError, match="no space left"):
            list(runs)
        names = files(journal)
        assert len(names) >= 4
        assert not [name for name in names if name.endswith(".tmp")]
        assert all(journal.samples(found)["noise"].tobytes() == noise for found in journal.records())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_journal_module_imports_the_standard_library_only() -> None:
    heavy = ("numpy", "pandas", "scipy", "torch")
    code = f"import sys, leaderboards.results; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
