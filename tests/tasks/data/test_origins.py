"""Sets that are published elsewhere than on the hub: addresses, and the real code against a web server on this machine."""

import base64
import hashlib
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest

from models.common.errors import UserError
from tasks.data import catalogue, origins, sources
from tests.tasks.data.test_sources import NOWHERE, below, zipped


class Files(ThreadingHTTPServer):
    """A plain web server of `content` by path; `requests` lists what was asked for."""

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), FilesHandler)
        self.content, self.requests = content, []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"


class FilesHandler(BaseHTTPRequestHandler):
    server: Files

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_file(False)

    def do_GET(self) -> None:
        self.send_file(True)

    def send_file(self, whole: bool) -> None:
        self.server.requests.append((self.command, self.path))
        body = self.server.content.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if whole:
            self.wfile.write(body)


@pytest.fixture
def web() -> Iterator[Files]:
    server = Files({})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def tarred(members: dict[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"


def offered(name: str, root: Path, server: Files, archives: dict[str, bytes], into: str = "") -> sources.Offer:
    """What `sources.offer` would say if these archives were published on `server`."""
    server.content.update({f"/{file}": body for file, body in archives.items()})
    files = [
        origins.Remote(f"{server.endpoint}/{file}", file, len(body), md5(body), into) for file, body in archives.items()
    ]
    card = catalogue.card(name)
    return sources.Offer(card, root / card.location, "a web server", tuple(files))


def test_tar_archives_are_unpacked_where_the_reader_looks(web, tmp_path):
    content = {"3band.tar.gz": tarred({"3band/a.tif": b"1"}), "geojson.tar.gz": tarred({"geojson/a.geojson": b"2"})}
    offer = offered("spacenet1", tmp_path, web, content, into="train")
    seen = []
    directory = sources.bring(offer, tmp_path, lambda done, total: seen.append((done, total)))
    assert directory == tmp_path / "SN1_buildings" == catalogue.find(offer.card, tmp_path)
    assert below(directory) == ["train/3band/a.tif", "train/geojson/a.geojson"]
    assert below(tmp_path)[-1] == "sources.json"
    assert len(below(tmp_path)) == 3
    total = sum(map(len, content.values()))
    assert (total, total) in seen


def test_a_folder_named_like_the_set_is_not_put_into_itself(web, tmp_path):
    offer = offered("pastis", tmp_path, web, {"PASTIS-R.zip": zipped({"PASTIS-R/metadata.geojson": b"{}"})})
    assert below(sources.bring(offer, tmp_path)) == ["metadata.geojson"]


def test_single_files_lie_in_their_folders(web, tmp_path):
    """Sen1Floods11 is no archive: its files are listed by the bucket, with sizes and md5."""
    chips = {
        f"v1.1/data/flood_events/HandLabeled/{folder}/India_1_{folder}.tif": folder.encode()
        for folder in ("S1Hand", "S2Hand", "LabelHand", "JRCWaterHand")
    }
    lists = {"v1.1/splits/flood_handlabeled/flood_train_data.csv": b"India_1_S1Hand.tif,India_1_LabelHand.tif"}
    serve_bucket(web, chips | lists)
    offer = sources.offer(catalogue.card("sen1floods11"), tmp_path, endpoint=web.endpoint)
    assert len(offer.files) == 4  # without the labels of another source
    assert sources.amount(offer) == "61 B in 4 files"
    directory = sources.bring(offer, tmp_path)
    assert below(directory) == sorted(set(chips | lists) - {next(name for name in chips if "JRC" in name)})
    assert (directory / next(iter(lists))).read_bytes() == lists["v1.1/splits/flood_handlabeled/flood_train_data.csv"]
    assert catalogue.find(offer.card, tmp_path) == directory


def serve_bucket(web: Files, content: dict[str, bytes]) -> None:
    """The bucket's listing in two pages, and its files."""
    items = [
        {
            "name": name,
            "size": str(len(body)),
            "md5Hash": base64.b64encode(bytes.fromhex(md5(body).removeprefix("md5:"))).decode(),
        }
        for name, body in content.items()
    ]
    for prefix in (origins.CHIPS, origins.LISTS):
        own = [item for item in items if str(item["name"]).startswith(prefix)]
        query = {"prefix": prefix, "fields": "items(name,size,md5Hash),nextPageToken"}
        listing = f"/storage/v1/b/{origins.BUCKET}/o?"
        first = {"items": own[:2], "nextPageToken": "next"}
        web.content[listing + urlencode(query)] = json.dumps(first).encode()
        web.content[listing + urlencode(query | {"pageToken": "next"})] = json.dumps({"items": own[2:]}).encode()
    web.content.update({f"/{origins.BUCKET}/{name}": body for name, body in content.items()})


def test_a_file_with_another_md5_is_refused_and_removed(web, tmp_path):
    offer = offered("pastis", tmp_path, web, {"PASTIS-R.zip": zipped({"PASTIS-R/metadata.geojson": b"{}"})})
    web.content["/PASTIS-R.zip"] = bytes(len(web.content["/PASTIS-R.zip"]))
    with pytest.raises(UserError, match=r"PASTIS-R\.zip is not the published file \(its md5 differs"):
        sources.bring(offer, tmp_path)
    assert below(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tarred({"../escaped": b"1"}), "points outside"),
        (tarred({"/escaped": b"1"}), "points outside"),
        (tarred({"a": b"1"}, link="b"), "is a symbolic link"),
        (tarred({"a": bytes(100000)})[:-40], "is no whole tar archive"),
        (b"no archive", "is no whole tar archive"),
    ],
    ids=["parent", "absolute", "link", "truncated", "other"],
)
def test_an_unfit_tar_archive_is_refused_and_leaves_no_directory(web, tmp_path, content, message):
    offer = offered("spacenet1", tmp_path, web, {"3band.tar.gz": content}, into="train")
    with pytest.raises(UserError, match=message):
        sources.bring(offer, tmp_path)
    assert not (tmp_path / "SN1_buildings").exists()
    assert not list(tmp_path.glob("*.unpacking"))
    assert not list(tmp_path.parent.glob("escaped"))


def test_archives_put_there_by_hand_are_checked_and_used_without_a_network(tmp_path):
    card = catalogue.card("uc-merced")
    content = zipped({"UCMerced_LandUse/Images/beach/beach00.tif": b"1"})
    (tmp_path / "UCMerced_LandUse.zip").write_bytes(content)
    offer = sources.offer(card, tmp_path)
    assert offer.files == ()
    with pytest.raises(UserError, match=r"its sha256 differs: .*; remove it"):
        sources.bring(offer, tmp_path)
    assert (tmp_path / "UCMerced_LandUse.zip").is_file()
    published = replace(card, checksums=(("UCMerced_LandUse.zip", f"sha256:{hashlib.sha256(content).hexdigest()}"),))
    directory = sources.bring(replace(offer, card=published), tmp_path)
    assert below(directory) == ["UCMerced_LandUse/Images/beach/beach00.tif"]
    assert (tmp_path / "UCMerced_LandUse.zip").is_file()


def test_an_archive_with_something_else_in_it_is_said(web, tmp_path):
    offer = offered("uc-merced", tmp_path, web, {"UCMerced_LandUse.zip": zipped({"readme.txt": b"1"})})
    with pytest.raises(UserError, match="but its files are not where"):
        sources.bring(offer, tmp_path)


@pytest.mark.parametrize("name", sorted(origins.ADDRESSES))
def test_every_file_of_a_card_has_an_address_and_a_checksum(name):
    card = catalogue.card(name)
    addresses = origins.ADDRESSES[name](card)
    for file, checksum in card.checksums:
        assert addresses[file].startswith("https://"), file
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum)


def test_checksums_of_cards_are_those_of_torchgeo():
    from torchgeo.datasets import LEVIRCD, OSCD, PASTIS, ChesapeakeCVPR, SpaceNet1, UCMerced

    published = {
        "levir-cd": {one["filename"]: f"md5:{one['md5']}" for one in LEVIRCD.splits.values()},
        "oscd": {name: f"sha256:{digest}" for name, digest in OSCD.sha256s.items()},
        "pastis": {PASTIS.filename: f"md5:{PASTIS.md5}"},
        "uc-merced": {UCMerced.filename: f"sha256:{UCMerced.sha256}"},
        "chesapeake-landsat8": {ChesapeakeCVPR.filenames["base"]: f"md5:{ChesapeakeCVPR.md5s['base']}"},
        "spacenet1": {
            name: f"md5:{digest}"
            for name, digest in zip(SpaceNet1.tarballs["train"][1], SpaceNet1.md5s["train"][1], strict=True)
        },
    }
    for name, digests in published.items():
        assert dict(catalogue.card(name).checksums) == digests, name


def test_addresses_of_amazons_buckets_are_web_addresses():
    address = origins.ADDRESSES["spacenet1"](catalogue.card("spacenet1"))["SN1_buildings_train_AOI_1_Rio_3band.tar.gz"]
    assert address == (
        "https://spacenet-dataset.s3.amazonaws.com/spacenet/SN1_buildings/tarballs/"
        "SN1_buildings_train_AOI_1_Rio_3band.tar.gz"
    )


def test_a_set_that_is_handed_out_on_request_says_what_to_put_where(tmp_path):
    for name, words in (("flair", "flair_labels_train"), ("cv-brct", "aerial/<class>/")):
        with pytest.raises(UserError, match="on request") as caught:
            sources.offer(catalogue.card(name), tmp_path)
        assert words in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


def test_every_set_can_be_fetched_or_says_what_to_do():
    for name in catalogue.names():
        card = catalogue.card(name)
        known = card.family in ("geobench", "sen1floods11") or name in {**origins.ADDRESSES, **origins.BY_HAND}
        assert known or name.startswith("demo-"), name


def test_without_a_network_the_listing_of_a_bucket_is_one_sentence(tmp_path):
    with pytest.raises(UserError) as caught:
        sources.offer(catalogue.card("sen1floods11"), tmp_path, endpoint=NOWHERE)
    assert re.match(
        r"sen1floods11: the listing .* cannot be had .*; where there is no network, unpack a copy", str(caught.value)
    )
    assert "\n" not in str(caught.value)
    assert below(tmp_path) == []


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (94_000_000, "94 MB"), (65_000_000_000, "65 GB")]
)
def test_sizes_are_readable(count, text):
    assert sources.words(count) == text
