"""The feature store: whole or absent, checked, and resumable."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models.common.errors import UserError
from tasks.common.store import entry
from tests.support import ROOT

KEY = {"weights": "random-0", "names": ["a", "b", "c"]}


def fill(store: Path, value: float = 1.0) -> None:
    with entry(store, KEY, 3) as slot:
        table = slot.create(2)
        table[:] = value
        slot.finish(table, {"warnings": ["w"]})


def test_what_is_finished_is_found_again_with_its_notes(tmp_path: Path):
    fill(tmp_path, 2.5)
    with entry(tmp_path, KEY, 3) as slot:
        stored = slot.load()
    assert stored is not None
    features, notes = stored
    assert isinstance(features, np.memmap)
    assert np.array_equal(features, np.full((3, 2), 2.5, np.float32))
    assert notes == {"warnings": ["w"]}


def test_another_key_finds_nothing(tmp_path: Path):
    fill(tmp_path)
    with entry(tmp_path, {**KEY, "weights": "random-1"}, 3) as slot:
        assert slot.load() is None


def test_damaged_features_are_never_used(tmp_path: Path):
    fill(tmp_path)
    (path,) = tmp_path.glob("*/features.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with entry(tmp_path, KEY, 3) as slot:
        assert slot.load() is None
        assert not slot.index.exists()


def test_an_interrupted_table_says_how_much_of_it_is_safe(tmp_path: Path):
    with entry(tmp_path, KEY, 3) as slot:
        table = slot.create(2)
        table[:2] = 7
        slot.checkpoint(table, 2, {"canary": {}})
    with entry(tmp_path, KEY, 3) as slot:
        assert slot.load() is None
        assert slot.resume() == (2, {"canary": {}})
        assert np.load(slot.data)[:2].tolist() == [[7, 7], [7, 7]]


HOLD = """
import sys
from pathlib import Path
from tasks.common.store import entry
with entry(Path(sys.argv[1]), {"weights": "random-0", "names": ["a", "b", "c"]}, 3) as slot:
    print("ready", flush=True)
    sys.stdin.readline()
    table = slot.create(2)
    table[:] = 4
    slot.finish(table, {"warnings": []})
"""


def test_a_second_process_waits_and_finds_the_firsts_features(tmp_path: Path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        threading.Timer(0.3, lambda: (other.stdin.write("go\n"), other.stdin.flush())).start()
        with entry(tmp_path, KEY, 3) as slot:
            stored = slot.load()
    assert stored is not None
    assert stored[0][0, 0] == 4


def test_a_full_disk_is_said_before_anything_is_computed_and_leaves_nothing(tmp_path: Path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with entry(tmp_path, KEY, 3) as slot, pytest.raises(UserError, match="No space left"):
        slot.create(2)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def test_the_index_tells_a_reader_what_the_features_are(tmp_path: Path):
    fill(tmp_path)
    (index,) = tmp_path.glob("*/index.json")
    assert json.loads(index.read_text())["key"] == KEY
