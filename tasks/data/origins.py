"""Where data sets are published: the files of each, with address, size and checksum. Nothing is downloaded here.

GEO-Bench's own downloader (`geobench.geobench_download`) takes all 65 GB of the hub data set `recursix/geo-bench-1.0`;
here are the files of one set, at one commit. Of other sets the cards say which files there are and what their checksums
are; the addresses are those of torchgeo's readers, looked up there, so that a set that moves is found again.
"""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from models.common.download import AGENT
from models.common.errors import UserError, one_line
from tasks.data.dataset import DatasetCard

REPOSITORY = "recursix/geo-bench-1.0"
# Sen1Floods11 is a public bucket of single files; its listing gives sizes and md5 (github.com/cloudtostreet/Sen1Floods11).
BUCKET, CHIPS, LISTS = "sen1floods11", "v1.1/data/flood_events/HandLabeled/", "v1.1/splits/flood_handlabeled/"
STORAGE = "https://storage.googleapis.com"
# The RGB version, which torchgeo does not read; the address is that of torchvision's reader.
EUROSAT_RGB = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
)
BY_HAND = {
    "flair": "it is handed out on request at ignf.github.io/FLAIR (FLAIR #1); unpack its folders flair_aerial_train, "
    "flair_labels_train, flair_1_aerial_test and flair_1_labels_test into {target}",
    "cv-brct": "it is handed out on request at patreo.dcc.ufmg.br/multi-view-datasets; unpack the aerial view so that "
    "{target}/aerial/<class>/ holds the images",
}
TIMEOUT = 20.0


class Remote(NamedTuple):
    """A published file. `path` names it, with folders where it is no archive: so it will lie below the set's directory.

    `size` in bytes, 0 where nobody says; `checksum` is `sha256:...`, `md5:...`, `blob:...` (git), or empty; `into` is the
    folder, below the set's directory, that an archive is unpacked into.
    """

    url: str
    path: str
    size: int = 0
    checksum: str = ""
    into: str = ""


def files(card: DatasetCard, endpoint: str | None = None) -> tuple[str, list[Remote]]:
    """Who publishes a data set, and its files. `endpoint` is the address of the hub or bucket if not the usual one.

    Raises `UserError` without a network, and for sets that only their authors hand out (`by_hand`).
    """
    if card.family == "geobench":
        return f"the hub data set {REPOSITORY}", _hub(card.location, endpoint)
    if card.family == "sen1floods11":
        return f"the bucket {BUCKET}", _bucket(endpoint or STORAGE)
    if card.name not in ADDRESSES:
        raise UserError(f"{card.name} cannot be fetched: the card names no address ({card.origin})")
    addresses = ADDRESSES[card.name](card)
    found = [Remote(addresses[name], name, 0, checksum, into(card)) for name, checksum in card.checksums]
    sized = [one._replace(size=_length(one.url)) for one in found]
    hosts = dict.fromkeys(one.url.split("/")[2] for one in found)
    return " and ".join(hosts), sized


def into(card: DatasetCard) -> str:
    """The folder below the set's directory that its archives are unpacked into."""
    return "train" if card.family == "spacenet1" else ""


def by_hand(card: DatasetCard, target: str) -> str:
    """What to do for a set that nobody can fetch without asking; empty where it can be fetched."""
    return BY_HAND[card.name].format(target=target) if card.name in BY_HAND else ""


def _spacenet(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import SpaceNet1, SpaceNet8

    reader = SpaceNet8 if card.family == "spacenet8" else SpaceNet1
    addresses = {name: reader.url.format(dataset_id=reader.dataset_id, tarball=name) for name, _ in card.checksums}
    return {name: _https(address) for name, address in addresses.items()}


def _https(address: str) -> str:
    """`s3://bucket/key` as the bucket's public web address."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return f"https://{bucket}.s3.amazonaws.com/{key}" if address.startswith("s3://") else address


def _pastis(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import PASTIS

    return {PASTIS.filename: PASTIS.url}


def _levir_cd(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import LEVIRCD

    return {one["filename"]: one["url"] for one in LEVIRCD.splits.values()}


def _oscd(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import OSCD

    return dict(OSCD.urls)


def _eurosat(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import EuroSAT

    lists = {name: EuroSAT.url + name for name in EuroSAT.split_filenames.values()}
    return {"EuroSAT.zip": EUROSAT_RGB, **lists}


def _uc_merced(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import UCMerced

    return {UCMerced.filename: UCMerced.url + UCMerced.filename}


def _worldstrat(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import WorldStrat

    return {one["filename"]: one["url"] for one in WorldStrat.file_info_dict.values()}


def _chesapeake(card: DatasetCard) -> dict[str, str]:
    from torchgeo.datasets import ChesapeakeCVPR

    return {ChesapeakeCVPR.filenames["base"]: ChesapeakeCVPR.urls["base"]}


ADDRESSES: dict[str, Callable[[DatasetCard], dict[str, str]]] = {
    "spacenet1": _spacenet,
    "spacenet1-8band": _spacenet,
    "spacenet8": _spacenet,
    "pastis": _pastis,
    "levir-cd": _levir_cd,
    "oscd": _oscd,
    "eurosat-rgb": _eurosat,
    "uc-merced": _uc_merced,
    "worldstrat": _worldstrat,
    "chesapeake-landsat8": _chesapeake,
}


def _hub(location: str, endpoint: str | None) -> list[Remote]:
    """The files of one GEO-Bench set (`classification_v1.0/m-so2sat`) at the hub's present commit."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.hf_api import RepoFile

    api, folder = HfApi(endpoint=endpoint), PurePosixPath(location).parent
    try:
        commit = api.dataset_info(REPOSITORY).sha or "main"
        tree = api.list_repo_tree(REPOSITORY, str(folder), recursive=True, revision=commit, repo_type="dataset")
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
    except Exception as error:  # the client lets through what its transport raises, which varies between versions
        raise UserError(f"the hub data set {REPOSITORY} cannot be listed ({one_line(error)})") from error
    chosen = set(select(location, [entry.path for entry in entries]))
    found = [
        Remote(
            hf_hub_url(REPOSITORY, entry.path, repo_type="dataset", revision=commit, endpoint=endpoint),
            str(PurePosixPath(entry.path).relative_to(folder)),
            entry.size,
            f"sha256:{entry.lfs.sha256}" if entry.lfs else f"blob:{entry.blob_id}",
        )
        for entry in entries
        if entry.path in chosen
    ]
    if not found:
        raise UserError(f"the hub data set {REPOSITORY} has no {location}")
    return found


def select(location: str, paths: Sequence[str]) -> list[str]:
    """Of the repository's paths those of one data set: its archive, or else the files in its folder."""
    archive = f"{location}.zip"
    return [archive] if archive in paths else [path for path in paths if path.startswith(f"{location}/")]


def _bucket(host: str) -> list[Remote]:
    """The hand-labelled chips of Sen1Floods11 and their lists, by the listing of the bucket."""
    found = []
    for prefix in (CHIPS, LISTS):
        page = ""
        while True:
            query = {"prefix": prefix, "fields": "items(name,size,md5Hash),nextPageToken"}
            listing = _json(
                f"{host}/storage/v1/b/{BUCKET}/o?{urlencode(query | ({'pageToken': page} if page else {}))}"
            )
            for item in listing.get("items", ()):
                if int(item["size"]):
                    md5 = base64.b64decode(item["md5Hash"]).hex()
                    address = f"{host}/{BUCKET}/{quote(item['name'])}"
                    found.append(Remote(address, item["name"], int(item["size"]), f"md5:{md5}"))
            page = listing.get("nextPageToken", "")
            if not page:
                break
    kept = ("S1Hand", "S2Hand", "LabelHand", "flood_handlabeled")
    return [one for one in found if PurePosixPath(one.path).parent.name in kept]


def _json(url: str) -> dict:
    try:
        with urlopen(Request(url, headers={"User-Agent": AGENT}), timeout=TIMEOUT) as response:
            return json.load(response)
    except (URLError, TimeoutError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"the listing {url.partition('?')[0]} cannot be had ({one_line(reason)})") from error


def _length(url: str) -> int:
    """The size that the server gives, 0 if it gives none. Raises `UserError` where there is no network."""
    try:
        with urlopen(Request(url, method="HEAD", headers={"User-Agent": AGENT}), timeout=TIMEOUT) as response:
            return int(response.headers.get("Content-Length", 0))
    except HTTPError:
        return 0  # some servers answer no such question; the download itself will tell
    except (URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"no network, or {url.split('/')[2]} is down ({one_line(reason)})") from error
