"""Downloads against a real server: interrupted, resumed, refused, verified; never half a file at the target."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.common import download
from models.common.download import https
from models.common.errors import UserError

CONTENT = bytes(range(256)) * 20_000  # 5.12 MB: five chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def target(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0, 0.0))
    return tmp_path / "folder" / "file.bin"


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_a_download_is_complete_verified_and_reported(server, target):
    server.files["/file.bin"] = CONTENT
    seen = []
    found = https(
        f"{server.url}/file.bin", target, sha256=DIGEST, size=len(CONTENT), progress=lambda *pair: seen.append(pair)
    )
    assert found == DIGEST
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["file.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_file_that_is_there_and_verified_is_not_fetched_again(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert https(f"{server.url}/file.bin", target, sha256=DIGEST[:8], size=len(CONTENT)) == DIGEST
    assert server.requests == []


def test_a_file_that_is_there_but_differs_is_replaced(server, target):
    server.files["/file.bin"] = CONTENT
    target.parent.mkdir()
    target.write_bytes(CONTENT[:1000])
    assert https(f"{server.url}/file.bin", target, sha256=DIGEST) == DIGEST
    assert target.read_bytes() == CONTENT


def test_a_dropped_connection_is_resumed_where_it_broke(server, target):
    server.files["/file.bin"] = CONTENT
    server.headers["ETag"] = '"one"'
    server.drops = [2_000_000, 0, 1_000_000]
    assert https(f"{server.url}/file.bin", target, sha256=DIGEST) == DIGEST
    starts = [wanted for _, wanted in server.requests]
    assert starts == [None, "bytes=2000000-", "bytes=2000000-", "bytes=3000000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server, target):
    server.files["/file.bin"] = CONTENT
    server.headers["ETag"] = '"one"'
    server.drops = [3_000_000, 0, 0, 0]
    with pytest.raises(
        UserError, match=r"no network, or .* is down \(.*\); 3000000 bytes are kept and a repeat resumes"
    ):
        https(f"{server.url}/file.bin", target)
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    server.requests.clear()
    assert https(f"{server.url}/file.bin", target) == DIGEST
    assert server.requests == [("GET", "bytes=3000000-")]
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("change", ["version", "length", "address"])
def test_parts_of_two_versions_are_never_joined(server, target, change):
    server.files["/file.bin"] = b"old" * 1_000_000
    server.headers["ETag"] = '"old"'
    server.drops = [1_500_000, 0, 0, 0]
    with pytest.raises(UserError):
        https(f"{server.url}/file.bin", target)
    server.files["/file.bin"] = server.files["/other.bin"] = CONTENT[:3_000_000] if change != "length" else CONTENT
    if change == "version":
        server.headers["ETag"] = '"new"'
    https(f"{server.url}/{'other' if change == 'address' else 'file'}.bin", target)
    assert target.read_bytes() == server.files["/file.bin"]


def test_a_server_without_ranges_is_asked_from_the_start_again(server, target):
    server.files["/file.bin"] = CONTENT
    server.ranges = False
    server.drops = [2_000_000]
    assert https(f"{server.url}/file.bin", target, sha256=DIGEST) == DIGEST
    assert target.read_bytes() == CONTENT


def test_a_part_that_was_complete_is_only_verified(server, target):
    server.files["/file.bin"] = CONTENT
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(CONTENT)
    mark = {"url": f"{server.url}/file.bin", "version": "", "total": len(CONTENT)}
    target.with_name("file.bin.part.json").write_text(json.dumps(mark))
    assert https(f"{server.url}/file.bin", target, sha256=DIGEST) == DIGEST
    assert server.requests == [("GET", f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize("mark", ["", "{", "[1]", "null"])
def test_a_part_of_unknown_origin_is_not_built_upon(server, target, mark):
    server.files["/file.bin"] = CONTENT
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(b"something else")
    target.with_name("file.bin.part.json").write_text(mark)
    assert https(f"{server.url}/file.bin", target) == DIGEST


def test_a_busy_server_is_asked_again(server, target):
    server.files["/file.bin"] = CONTENT
    server.refusals = [503, 429]
    assert https(f"{server.url}/file.bin", target) == DIGEST


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"sha256": "0" * 64}, f"sha256 {DIGEST}; published: any number of bytes, sha256 {'0' * 64}"),
        ({"size": 7}, f"{len(CONTENT)} bytes instead of 7"),
    ],
    ids=["digest", "size"],
)
def test_another_file_than_the_published_one_is_not_kept(server, target, facts, message):
    server.files["/file.bin"] = CONTENT
    with pytest.raises(UserError, match=message):
        https(f"{server.url}/file.bin", target, **facts)
    assert names(target.parent) == []


def test_a_refusal_is_one_sentence_and_is_not_repeated(server, target):
    with pytest.raises(UserError, match="the server answers 404 Not Found"):
        https(f"{server.url}/absent.bin", target)
    assert len(server.requests) == 1
    assert names(target.parent) == []


def test_a_web_page_is_not_taken_for_the_file(server, target):
    server.files["/file.bin"] = b"<html>please log in</html>"
    server.headers["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="leads to a web page"):
        https(f"{server.url}/file.bin", target)
    assert names(target.parent) == []


def test_without_a_network_there_is_one_sentence_at_once(nowhere, target, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (60.0,))  # a wait would outlast the test's patience
    with pytest.raises(UserError, match=r"no network, or .* is down \(.*refused\)$"):
        https(f"{nowhere}/file.bin", target)
    assert names(target.parent) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_leaves_nothing_behind(server, target):
    server.files["/file.bin"] = CONTENT
    target.parent.mkdir()
    target.with_name("file.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"the disk is full: .* free some space"):
        https(f"{server.url}/file.bin", target)
    assert names(target.parent) == []


def test_a_file_larger_than_the_free_space_is_refused_before_it_is_fetched(server, target, monkeypatch):
    server.files["/file.bin"] = CONTENT
    usage = download.shutil.disk_usage(target.parents[1])._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="the disk is full"):
        https(f"{server.url}/file.bin", target)
    assert names(target.parent) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    with pytest.raises(UserError, match="cannot be written or read"):
        https(f"{server.url}/file.bin", tmp_path / "taken" / "file.bin")


def test_two_processes_that_want_one_file_fetch_it_once(server, target):
    server.files["/file.bin"] = CONTENT
    code = "import sys; from pathlib import Path; from models.common.download import https; "
    code += "print(https(sys.argv[1], Path(sys.argv[2])))"
    command = [sys.executable, "-c", code, f"{server.url}/file.bin", str(target)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == [DIGEST] * 3
    assert len(server.requests) == 1
    assert names(target.parent) == ["file.bin"]


HUB = """
import sys
from pathlib import Path
from models.common.download import hub
from models.common.errors import UserError
seen = []
try:
    target = Path(sys.argv[1])
    print(hub("someone/model", "model.bin", target, revision="main", progress=lambda *pair: seen.append(pair)))
    print(seen[-1:])
except UserError as error:
    print(error)
"""


def from_hub(endpoint: str, target: Path) -> list[str]:
    """Run `hub` in a process of its own: the library reads its address from the environment when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(target.parent / "home"), "HF_HUB_DISABLE_XET": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(target)], env={**kept, **settings}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_file_of_the_hub_arrives_whole_with_progress(server, target):
    server.files["/someone/model/resolve/main/model.bin"] = CONTENT
    server.headers = {"ETag": '"one"', "X-Repo-Commit": "0" * 40}
    assert from_hub(server.url, target) == [DIGEST, f"[({len(CONTENT)}, {len(CONTENT)})]"]
    assert target.read_bytes() == CONTENT
    assert set(names(target.parent)) <= {"file.bin", "home"}


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "EntryNotFound", "someone/model/model.bin could not be downloaded from the Hugging Face hub (404"),
        (403, "GatedRepo", "someone/model on the Hugging Face hub wants its licence accepted and a token"),
    ],
    ids=["absent", "gated"],
)
def test_what_the_hub_refuses_is_one_sentence(server, target, status, code, message):
    server.headers = {"X-Error-Code": code, "X-Repo-Commit": "0" * 40, "ETag": '"one"'}
    server.refusals = [status] * 9
    (line,) = from_hub(server.url, target)
    assert line.startswith(message)
    assert not target.exists()


def test_a_hub_that_cannot_be_reached_is_one_sentence(nowhere, target):
    (line,) = from_hub(nowhere, target)
    assert line.startswith("no network, or the Hugging Face hub is down (")
    assert not target.exists()
