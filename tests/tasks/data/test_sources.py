"""Fetching: the real code against a small hub on this machine, which speaks the hub's listing and download routes."""

import hashlib
import io
import json
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models.common import download
from models.common.errors import UserError
from tasks.data import catalogue, geobench, origins, sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOCATION = "classification_v1.0/m-so2sat"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


MEMBERS = {"m-so2sat/default_partition.json": b'{"train": ["id_0"]}', "m-so2sat/id_0.hdf5": bytes(range(256)) * 40}
ARCHIVE = zipped(MEMBERS)


class Hub(ThreadingHTTPServer):
    """What `recursix/geo-bench-1.0` would answer if it held `content`; `requests` lists (path, Range) of downloads."""

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.requests, self.cut = content, [], 0
        self.served = dict(content)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        base = f"/api/datasets/{origins.REPOSITORY}"
        if path in (base, f"{base}/revision/main"):
            self.answer({"id": origins.REPOSITORY, "sha": COMMIT, "siblings": [], "tags": []})
        elif path.startswith(f"{base}/tree/{COMMIT}/"):
            folder = path.removeprefix(f"{base}/tree/{COMMIT}/")
            self.answer([entry(name, body) for name, body in self.server.content.items() if name.startswith(folder)])
        elif path.startswith(f"/datasets/{origins.REPOSITORY}/resolve/{COMMIT}/"):
            self.send_file(path.removeprefix(f"/datasets/{origins.REPOSITORY}/resolve/{COMMIT}/"))
        else:
            self.send_error(404)

    def answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, name: str) -> None:
        self.server.requests.append((name, self.headers.get("Range", "")))
        body = self.server.served[name]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[start : self.server.cut or None])


def entry(name: str, body: bytes) -> dict:
    """A line of the hub's tree: large files carry their sha256, small ones only the id of their git blob."""
    blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    line = {"type": "file", "path": name, "size": len(body), "oid": blob}
    if name.endswith((".zip", ".hdf5")):
        line["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
    return line


@pytest.fixture
def hub() -> Iterator[Hub]:
    other = zipped({"m-other/default_partition.json": b"{}"})
    server = Hub(
        {
            f"{LOCATION}.zip": ARCHIVE,
            "classification_v1.0/m-so2sat-rgb.zip": other,
            "classification_v1.0/normalizer.json": b"{}",
            "segmentation_v1.0/m-so2sat.zip": other,
        }
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_one_set_is_fetched_unpacked_and_its_checksum_recorded(hub, tmp_path):
    seen = []
    directory = sources.fetch(
        "m-so2sat", tmp_path, lambda done, total: seen.append((done, total)), endpoint=hub.endpoint
    )
    assert directory == tmp_path / LOCATION == geobench.present(catalogue.card("m-so2sat"), tmp_path)
    assert hub.requests == [(f"{LOCATION}.zip", "")]
    assert below(tmp_path) == [f"classification_v1.0/{name}" for name in sorted(MEMBERS)] + ["sources.json"]
    assert (directory / "id_0.hdf5").read_bytes() == MEMBERS["m-so2sat/id_0.hdf5"]
    record = json.loads((tmp_path / "sources.json").read_text())
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    assert record == {"m-so2sat": {"repository": origins.REPOSITORY, "sha256": {f"{LOCATION}.zip": digest}}}
    assert (len(ARCHIVE), len(ARCHIVE)) in seen
    assert seen[-1] == (sum(map(len, MEMBERS.values())),) * 2
    assert sources.fetch("m-so2sat", tmp_path, endpoint=NOWHERE) == directory
    assert len(hub.requests) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAITS", ())
    hub.cut = 5000
    with pytest.raises(UserError, match="dropped after 5000 of"):
        sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)
    assert not (tmp_path / LOCATION).exists()
    hub.cut, hub.requests = 0, []
    sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)
    assert hub.requests == [(f"{LOCATION}.zip", "bytes=5000-")]
    assert (tmp_path / LOCATION / "id_0.hdf5").read_bytes() == MEMBERS["m-so2sat/id_0.hdf5"]


def test_a_file_that_is_not_the_published_one_is_refused(hub, tmp_path):
    hub.served[f"{LOCATION}.zip"] = ARCHIVE[:-30] + bytes(30)
    with pytest.raises(UserError, match="sha256"):
        sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)
    assert not (tmp_path / LOCATION).exists()


def test_a_release_that_changed_since_the_first_fetch_is_refused(hub, tmp_path):
    sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)
    for path in (tmp_path / LOCATION).iterdir():
        path.unlink()
    (tmp_path / LOCATION).rmdir()
    hub.content[f"{LOCATION}.zip"] = hub.served[f"{LOCATION}.zip"] = zipped({**MEMBERS, "m-so2sat/new": b"1"})
    with pytest.raises(
        UserError, match=r"when first fetched; to accept the new one remove 'm-so2sat' from .*sources.json"
    ):
        sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)
    assert len(hub.requests) == 1


def test_a_set_that_lies_unpacked_on_the_hub_is_fetched_file_by_file(hub, tmp_path):
    del hub.content[f"{LOCATION}.zip"]
    files = {f"classification_v1.0/{name}": body for name, body in MEMBERS.items()}
    hub.content.update(files)
    hub.served.update(files)
    directory = sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {
        Path(name).name: body for name, body in MEMBERS.items()
    }
    assert len(json.loads((tmp_path / "sources.json").read_text())["m-so2sat"]["sha256"]) == 2


def test_a_small_file_with_another_git_blob_is_refused(hub, tmp_path):
    del hub.content[f"{LOCATION}.zip"]
    name = f"{LOCATION}/default_partition.json"
    hub.content[name], hub.served[name] = b'{"train": []}', b'{"train": 12}'
    with pytest.raises(UserError, match="git blob id differs"):
        sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)
    assert not (tmp_path / LOCATION).exists()


def test_without_a_network_the_error_says_what_to_put_where_and_that_works(tmp_path):
    with pytest.raises(UserError) as caught:
        sources.fetch("m-so2sat", tmp_path, endpoint=NOWHERE)
    message = str(caught.value)
    assert message.startswith("m-so2sat: the hub data set recursix/geo-bench-1.0 cannot be listed")
    assert f"put {LOCATION}.zip of that data set at {tmp_path / LOCATION}.zip and repeat" in message
    assert "\n" not in message
    (tmp_path / "classification_v1.0").mkdir(exist_ok=True)
    (tmp_path / f"{LOCATION}.zip").write_bytes(ARCHIVE)
    directory = sources.fetch("m-so2sat", tmp_path, endpoint=NOWHERE)
    assert (directory / "id_0.hdf5").read_bytes() == MEMBERS["m-so2sat/id_0.hdf5"]
    assert (tmp_path / f"{LOCATION}.zip").is_file()
    assert json.loads((tmp_path / "sources.json").read_text())["m-so2sat"]["sha256"]


def test_a_set_that_the_hub_lacks_is_named(hub, tmp_path):
    with pytest.raises(UserError, match=r"has no classification_v1\.0/m-forestnet"):
        sources.fetch("m-forestnet", tmp_path, endpoint=hub.endpoint)


def test_a_name_that_begins_another_is_not_mistaken_for_it():
    paths = [
        "s/m-pv4ger-seg.zip",
        "c/m-pv4ger.zip",
        "c/m-pv4ger-rgb/a.json",
        "c/m-x/a.json",
        "c/m-x/b.hdf5",
        "c/m-xy/c",
    ]
    assert origins.select("c/m-pv4ger", paths) == ["c/m-pv4ger.zip"]
    assert origins.select("c/m-x", paths) == ["c/m-x/a.json", "c/m-x/b.hdf5"]
    assert origins.select("c/m-none", paths) == []


def link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("m-so2sat/default_partition.json")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({**MEMBERS, "../../escaped": b"1"}), r"'\.\./\.\./escaped' points outside"),
        (zipped({**MEMBERS, "/escaped": b"1"}), "'/escaped' points outside"),
        (zipped({**MEMBERS, "C:/escaped": b"1"}), "points outside"),
        (link(), "is a symbolic link"),
        (ARCHIVE[: len(ARCHIVE) // 2], "is no whole zip archive"),
        (ARCHIVE.replace(b"train", b"tr@in", 1), "is no whole zip archive"),
        (zipped({"m-so2sat/readme": b""}), r"holds 0 data sets"),
        (zipped({**MEMBERS, "m-b/default_partition.json": b""}), r"holds 2 data sets"),
    ],
    ids=["parent", "absolute", "drive", "link", "truncated", "damaged", "empty", "two"],
)
def test_an_unfit_archive_is_refused_and_leaves_nothing(tmp_path, content, message):
    (tmp_path / "data" / "classification_v1.0").mkdir(parents=True)
    (tmp_path / "data" / f"{LOCATION}.zip").write_bytes(content)
    with pytest.raises(UserError, match=message):
        sources.fetch("m-so2sat", tmp_path / "data", endpoint=NOWHERE)
    assert below(tmp_path) == [f"data/{LOCATION}.zip", "data/sources.json"]
    assert [path.name for path in (tmp_path / "data" / "classification_v1.0").iterdir()] == ["m-so2sat.zip"]


def test_the_files_of_an_archive_may_lie_at_its_top(tmp_path):
    (tmp_path / "classification_v1.0").mkdir()
    content = zipped({Path(name).name: body for name, body in MEMBERS.items()})
    (tmp_path / f"{LOCATION}.zip").write_bytes(content)
    directory = sources.fetch("m-so2sat", tmp_path)
    assert sorted(path.name for path in directory.iterdir()) == ["default_partition.json", "id_0.hdf5"]
    assert directory.stat().st_mode == directory.parent.stat().st_mode  # as open to others as any new folder


def test_a_damaged_record_is_named(hub, tmp_path):
    (tmp_path / "sources.json").write_text("[1")
    with pytest.raises(UserError, match=r"sources\.json is damaged"):
        sources.fetch("m-so2sat", tmp_path, endpoint=hub.endpoint)


def test_a_set_that_lies_elsewhere_below_the_data_root_is_not_fetched_again(tmp_path):
    (tmp_path / "m-so2sat").mkdir()
    (tmp_path / "m-so2sat" / "default_partition.json").touch()
    assert sources.fetch("m-so2sat", tmp_path, endpoint=NOWHERE) == tmp_path / "m-so2sat"


def test_a_data_root_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="m-so2sat cannot be written to"):
        sources.fetch("m-so2sat", tmp_path / "file", endpoint=NOWHERE)


def test_a_demo_set_is_written_and_not_downloaded(tmp_path):
    directory = sources.fetch("demo-eurosat", tmp_path, endpoint=NOWHERE)
    assert directory == tmp_path / "twin" / "classification_v1.0" / "m-eurosat"
    assert len(list(directory.glob("*.hdf5"))) == 140


def test_wrong_names_and_folders_of_ones_own_are_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'm-so2sat'"):
        sources.fetch("m-sosat", tmp_path)
    (tmp_path / LOCATION).mkdir(parents=True)
    with pytest.raises(UserError, match="is there but no whole data set; move it away"):
        sources.fetch("m-so2sat", tmp_path)


def test_the_remedy_is_the_command_that_fetches():
    assert sources.remedy(catalogue.card("m-so2sat")) == "`python -m harness data fetch m-so2sat`"
