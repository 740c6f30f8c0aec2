"""The store: whole or absent, checked, resumable, and within its limit."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models.common.errors import UserError
from tasks.common.store import entry, evict, hold, in_words, locked, parse_size, remove
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


@pytest.mark.parametrize(
    ("text", "size"),
    [("50GB", 50e9), ("500MB", 5e8), ("1.5 tb", 1.5e12), ("2GiB", 2**31), ("64kib", 65536), (" 123 ", 123), ("7B", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: float):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "50 gigs", "1e9", "0", "0.1", "nan", "5 0GB", "٣GB"])
def test_what_is_no_size_is_refused_with_an_example(text: str):
    with pytest.raises(UserError, match="50GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "words"), [(999, "999 bytes"), (999_960, "1.0 MB"), (4.6e9, "4.6 GB"), (2e15, "2000.0 TB")]
)
def test_sizes_are_said_as_people_say_them(size: float, words: str):
    assert in_words(size) == words


def used(store: Path, number: int, when: int) -> Path:
    """An entry of 40 128 bytes and its index, last used at second `when`."""
    with entry(store, {"number": number}, 10_000) as slot:
        slot.finish(slot.create(1), {})
    os.utime(slot.directory / "lock", (when, when))
    return slot.directory


def test_the_least_recently_used_entries_leave_first_and_a_use_counts(tmp_path: Path):
    first, second, third = (used(tmp_path, number, when) for number, when in ((1, 10), (2, 30), (3, 20)))
    with entry(tmp_path, {"number": 1}, 10_000) as slot:
        assert slot.load() is not None
    assert evict(tmp_path, 90_000) <= 90_000
    assert [path.exists() for path in (first, second, third)] == [True, True, False]
    assert evict(tmp_path, 90_000, ()) > 80_000
    assert evict(tmp_path, 0, (first,)) > 40_000
    assert [path.exists() for path in (first, second)] == [True, False]


def test_what_is_in_use_or_no_entry_stays(tmp_path: Path):
    writing, reading, idle = (used(tmp_path, number, number) for number in (1, 2, 3))
    mine = tmp_path / "0123456789abcdef01234567"
    mine.mkdir()
    (mine / "thesis.txt").write_text("not ours")
    lock, using = (hold(path, fcntl.LOCK_SH) for path in (writing / "lock", reading / "using"))
    evict(tmp_path, 0)
    assert [path.exists() for path in (writing, reading, idle, mine / "thesis.txt")] == [True, True, False, True]
    os.close(lock)
    os.close(using)
    assert evict(tmp_path, 0) == 0


def test_who_waits_for_an_entry_that_is_removed_locks_the_one_that_others_find(tmp_path: Path, monkeypatch):
    waits, done = threading.Event(), []
    flock = fcntl.flock

    def told(descriptor: int, how: int) -> None:
        if threading.current_thread() is other:
            waits.set()  # the lock file is open, and will be removed
        flock(descriptor, how)

    def second() -> None:
        with locked(tmp_path, KEY) as directory:
            with pytest.raises(BlockingIOError):
                hold(directory / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
            done.append(directory)

    other = threading.Thread(target=second)
    monkeypatch.setattr(fcntl, "flock", told)
    with locked(tmp_path, KEY) as directory:
        other.start()
        assert waits.wait(30)
        remove(directory)
        assert not directory.exists()
    other.join(30)
    assert done == [directory]


def test_a_store_that_cannot_be_used_is_a_mistake_the_caller_can_mend(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another with --store"), locked(tmp_path / "file", KEY):
        pass
    with pytest.raises(UserError, match="choose another with --store"):
        evict(tmp_path / "file", 1)
