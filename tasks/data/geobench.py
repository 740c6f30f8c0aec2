"""Reader of GEO-Bench v1 directories: one HDF5 file per sample, one key per band, metadata in a pickle (never trusted).

Layout, pickles and partitions are those of geobench 1.1 (`geobench.dataset`, `geobench.task`), whose restricted
unpickler is used for labels and task specifications: no code that a file brings along is run.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, choose, one_line
from models.common.spectral import Band, band
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.geobench_cards import FINGERPRINTS, misnamed

if TYPE_CHECKING:
    import h5py
    import numpy as np

FOLDERS = ("classification_v1.0", "segmentation_v1.0", ".")
BAND_NAMES = ("corrected", "as-released")
RELEASED_SPLITS = {"train": "train", "valid": "val", "test": "test"}
KINDS = {"i": "integer", "u": "unsigned integer", "f": "floating point"}  # of numpy's dtypes


@dataclass
class GeobenchDataset:
    """An opened GEO-Bench directory (see `tasks.data.dataset.Dataset`). Holds no open file, so workers can share it.

    `subsets` are the training partitions; `notes` are lines for the caller to print: what was done to the band names,
    and which keys of the files are left unread.
    """

    card: DatasetCard
    root: Path
    bands: tuple[Band, ...]
    splits: dict[str, tuple[str, ...]]
    version: str
    subsets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def partitions(self) -> dict[str, tuple[str, ...]]:
        """Training subsets of the release by name (`0.01x_train` ...): independent draws, not nested in each other."""
        return dict(self.subsets)

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One patch (C, H, W), in the order of `bands`, in the stored dtype and unit; other bands are not touched.

        Raises `UserError` if the file is damaged, lacks a band, or a band has another shape or is not numeric.
        """
        import numpy as np

        keys = {one.name: one.key for one in self.bands}
        wanted = [keys[choose(f"band of {self.card.name}", one, keys)] for one in bands]
        path = self.root / f"{name}.hdf5"
        with _opened(path) as file:
            planes = [_plane(file, key, path, "iuf", self.card.size) for key in wanted]
        shapes = {plane.shape for plane in planes}
        if len(shapes) > 1:
            raise UserError(f"{path}: bands of the sizes {sorted(shapes)} do not make one patch")
        return np.stack(planes)

    def label(self, name: str) -> Any:
        """The label: a class (int), a 0/1 vector (classes,), or a mask (H, W) of classes.

        Raises `UserError` if the file is damaged, the label is missing, of another kind or out of range, or its pickle
        names anything that GEO-Bench does not write.
        """
        path = self.root / f"{name}.hdf5"
        with _opened(path) as file:
            if self.card.label == "mask":
                mask = _plane(file, "label", path, "iu", self.card.size)
                classes = mask[mask != self.card.ignore]
                _check_range(classes, self.card.num_classes - 1, path)
                return mask
            text = file.attrs.get("pickle")
        try:
            pickled = ast.literal_eval(text) if isinstance(text, str) else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pickled = None
        if not isinstance(pickled, bytes):
            raise UserError(
                f"{path}: the attribute 'pickle', which holds the label, is missing or damaged; fetch it again"
            )
        attributes = _unpickle(pickled, path)
        if not isinstance(attributes, dict) or "label" not in attributes:
            raise UserError(f"{path} has no label in its attribute 'pickle'; {self.card.name} needs one per sample")
        return self._scalar_or_vector(attributes["label"], path)

    def _scalar_or_vector(self, label: Any, path: Path) -> Any:
        import numpy as np

        array = np.asarray(label if isinstance(label, int | np.generic | np.ndarray) else None)
        vector = self.card.label == "multilabel"
        if array.dtype.kind not in "iub" or array.shape != ((self.card.num_classes,) if vector else ()):
            wanted = f"a vector of {self.card.num_classes} labels" if vector else "one class"
            raise UserError(f"{path}: its label is a {type(label).__name__} of shape {array.shape}, not {wanted}")
        _check_range(array, 1 if vector else self.card.num_classes - 1, path)
        return array if vector else int(array)


def present(card: DatasetCard, root: Path) -> Path | None:
    """The directory of this data set below the data root, under its own name or an alias; None if there is none."""
    names = (card.name, *card.aliases)
    candidates = [root / card.location, *(root / folder / name for folder in FOLDERS for name in names)]
    return next((path for path in candidates if path.is_dir()), None)


def open_dataset(card: DatasetCard, directory: Path, band_names: str = "corrected") -> GeobenchDataset:
    """Open one GEO-Bench directory. `band_names`: `corrected` (only where the data prove it) or `as-released`.

    Raises `UserError`, naming file and remedy: no or malformed partitions, samples that are absent, an empty split,
    malformed statistics, task specifications that contradict the card or hold a foreign pickle.
    """
    choose("value of band_names", band_names, BAND_NAMES)
    directory = Path(directory)
    default = directory / "default_partition.json"
    if not default.is_file():
        raise UserError(f"{directory} has no default_partition.json; {_remedy(card)}")
    with os.scandir(directory) as entries:
        files = [entry for entry in entries if entry.name.endswith(".hdf5") and entry.is_file()]
        sizes = {entry.name.removesuffix(".hdf5"): entry.stat().st_size for entry in files}
    splits = _partition(default, card, sizes)
    for split in SPLITS:
        if not splits[split]:
            raise UserError(f"{default}: the split {split} is empty; {_remedy(card)}")
    warnings, notes, subsets = list(_overlaps(default.name, splits, splits)), [], {}
    read = [default]
    for path in sorted(directory.glob("*x_train_partition.json")):
        train = _partition(path, card, sizes)["train"]
        if train:  # one per cent of a tiny set is no image at all: such a partition is as good as absent
            subsets[path.name.removesuffix("_partition.json")] = train
            warnings += _overlaps(path.name, {"train": train}, splits)
            read.append(path)
    card = _check_specs(card, directory / "task_specs.pkl", notes)
    bands = _named_bands(card, directory, splits["train"], band_names, warnings, notes)
    read += [path for name in ("task_specs.pkl", "band_stats.json") if (path := directory / name).is_file()]
    version = _digest(card, bands, read, [(name, sizes[name]) for split in SPLITS for name in splits[split]])
    return GeobenchDataset(card, directory, bands, splits, version, subsets, warnings, notes)


def _remedy(card: DatasetCard) -> str:
    return f"`python -m harness data fetch {card.name}` fetches the whole set"


@contextmanager
def _opened(path: Path) -> "Iterator[h5py.File]":
    """An HDF5 file for reading. What the library says of a damaged one, now or while reading, becomes a `UserError`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} is not there; fetch the data set again") from None
    except (OSError, RuntimeError, KeyError) as error:  # the three ways in which h5py reports damage
        raise UserError(f"{path} is no readable HDF5 file (truncated?): {one_line(error)}; fetch it again") from None


def _plane(file: "h5py.File", key: str, path: Path, kinds: str, size: int) -> "np.ndarray":
    """What a key holds, (H, W), checked before it is read; of dated keys (`Red_2016-01-01`) the last one counts."""
    import h5py

    found = key
    if key not in file:
        dated = re.compile(re.escape(key) + r"_\d{4}-\d\d-\d\d.*")
        found = max(filter(dated.fullmatch, map(str, file)), default="")
    stored = file[found] if found else None
    if not isinstance(stored, h5py.Dataset):
        raise UserError(f"{path} has no key {key!r}; it has {', '.join(map(repr, file))}")
    if stored.dtype.kind not in kinds:
        raise UserError(f"{path}: {found!r} is {stored.dtype}, not {' or '.join(KINDS[kind] for kind in kinds)}")
    if len(stored.shape) != 2 or (size and stored.shape != (size, size)):
        raise UserError(f"{path}: {found!r} is of shape {stored.shape}, not {(size, size) if size else '(H, W)'}")
    return stored[()]


def _check_range(labels: "np.ndarray", highest: int, path: Path) -> None:
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= highest:
        raise UserError(f"{path}: labels {labels.min()}..{labels.max()} are out of range, which is 0..{highest}")


def _unpickle(data: bytes, path: Path) -> Any:
    """Rebuild metadata with geobench's unpickler, which refuses every class that GEO-Bench does not write."""
    from geobench._safe_pickle import UnsafePickleError, safe_loads

    try:
        return safe_loads(data)
    except UnsafePickleError as error:
        raise UserError(f"{path} holds a foreign pickle, of which nothing was run: {one_line(error)}") from None
    except Exception as error:  # a damaged pickle may raise anything at all
        raise UserError(f"{path} holds a damaged pickle ({one_line(error)}); fetch it again") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({one_line(error)})") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({one_line(error)}); fetch it again") from None
    if not isinstance(stored, dict):
        raise UserError(f"{path} holds a {type(stored).__name__} where GEO-Bench has a mapping; fetch it again")
    return stored


def _partition(path: Path, card: DatasetCard, known: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Sample names per split, in the order of the file; every one must be a file of the directory."""
    stored = _json(path)
    for split, names in stored.items():
        choose(f"split in {path}:", split, RELEASED_SPLITS)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: {split} is no list of sample names; fetch it again")
    absent = [name for names in stored.values() for name in names if name not in known]
    if absent:
        raise UserError(f"{path} names {len(set(absent))} absent samples, first {absent[0]!r}; {_remedy(card)}")
    return {ours: tuple(stored.get(theirs, ())) for theirs, ours in RELEASED_SPLITS.items()}


def _overlaps(source: str, ours: Mapping[str, Sequence[str]], default: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line per pair of splits that share samples and per split that repeats some: released so, hence no error."""
    for split, names in ours.items():
        if repeated := len(names) - len(set(names)):
            yield f"{source}: {repeated} samples stand in {split} more than once"
        for other in SPLITS[SPLITS.index(split) + 1 :]:
            if both := set(names) & set(default[other]):
                yield f"{source}: {len(both)} samples of {split} are in {other} too, e.g. {min(both)}"


def _check_specs(card: DatasetCard, path: Path, notes: list[str]) -> DatasetCard:
    """Hold task_specs.pkl against the card and fill in what the card leaves open; without the file the card stands."""
    if not path.is_file():
        return card
    specs = _unpickle(_bytes(path), path)
    try:
        kind, classes, names, size, keys = _facts(specs)
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"{path} holds a {type(specs).__name__}, no sound task specifications; {_remedy(card)}"
        ) from None
    for what, found, ours in (
        ("label", kind, card.label),
        ("number of classes", classes, card.num_classes or classes),
        ("patch size", size, (card.size, card.size) if card.size else size),
        ("bands missing", [one.key for one in card.bands if one.key not in keys], []),
    ):
        if found != ours:
            raise UserError(f"{path}: {what} {found}, but {card.name} has {ours}; {_remedy(card)}")
    unread = [key for key in keys if key not in {one.key for one in card.bands}]
    if unread:
        notes.append(f"{card.name}: {', '.join(unread)} of the files are not read")
    if names and card.classes and names != card.classes:
        notes.append(f"{card.name}: class names are those of task_specs.pkl")
    named = names or card.classes or tuple(f"class {index}" for index in range(classes))
    return replace(card, classes=named, size=card.size or (size[0] if len(set(size)) == 1 else 0))


def _facts(specs: Any) -> tuple[str, int, tuple[str, ...], tuple[int, ...], list[str]]:
    """Kind of label, number and names of classes, patch size, keys. Raises TypeError, AttributeError or ValueError."""
    from geobench.dataset import SegmentationClasses
    from geobench.label import Classification, MultiLabelClassification, SemanticSegmentation
    from geobench.task import TaskSpecifications

    if not isinstance(specs, TaskSpecifications):
        raise TypeError(type(specs).__name__)
    label = specs.label_type
    kind = type(label).__name__
    if isinstance(label, SegmentationClasses | SemanticSegmentation):
        kind = "mask"
    elif isinstance(label, Classification):
        kind = "class"
    elif isinstance(label, MultiLabelClassification):
        kind = "multilabel"
    names = getattr(label, "class_names", None) or getattr(label, "class_name", None) or ()
    size = tuple(int(length) for length in (specs.patch_size or ())[:2])
    keys = [str(info.name) for info in specs.bands_info or ()]
    return kind, int(getattr(label, "n_classes", 0)), tuple(map(str, names)), size, keys


def _named_bands(
    card: DatasetCard, directory: Path, train: Sequence[str], band_names: str, warnings: list[str], notes: list[str]
) -> tuple[Band, ...]:
    """The card's bands with the release's statistics (by key), under released names where the truth is unproven."""
    path = directory / "band_stats.json"
    statistics: dict[str, dict[str, float]] = _json(path) if path.is_file() else {}
    for key, values in statistics.items():
        if not isinstance(values, dict) or not all(isinstance(value, int | float) for value in values.values()):
            raise UserError(f"{path}: {key!r} holds no statistics; fetch it again")
    released, bands = misnamed(card), card.bands
    if released:
        proven, proof = _proof(card, directory, train, statistics)
        truth = ", ".join(f"{one.key!r} holds {one.name}" for one in bands if one.key in released)
        if band_names == "as-released":
            notes.append(f"{card.name}: band names as released{f', although {truth}' if proven else ''} ({proof})")
        elif proven:
            notes.append(f"{card.name}: band names corrected, {truth} ({proof})")
        else:
            warnings.append(
                f"{card.name}: band names left as stored, the files do not show the released error ({proof})"
            )
        if band_names == "as-released" or not proven:
            bands = tuple(band(released[one.key], one.key, "dn") if one.key in released else one for one in bands)
    known = {one.key: statistics.get(one.key, {}) for one in bands}
    without = [key for key, values in known.items() if not {"mean", "std"} <= values.keys()]
    if without:
        warnings.append(f"{card.name}: band_stats.json gives no mean and std for {', '.join(without)}")
    return tuple(
        replace(one, mean=mean, std=std, statistics="" if one.key in without else "band_stats.json of the release")
        for one in bands
        for mean, std in [(float(known[one.key].get("mean", nan)), float(known[one.key].get("std", nan)))]
    )


def _proof(
    card: DatasetCard, directory: Path, train: Sequence[str], statistics: Mapping[str, Mapping[str, float]]
) -> tuple[bool, str]:
    """Whether every fingerprint of the card's true band names is in the data, and what was seen, in words.

    Looked up in the statistics; where they are silent, in up to eight images spread over the training split.
    """
    proven, seen, references = True, [], []
    for one in card.bands:
        if one.name not in FINGERPRINTS:
            continue
        statistic, bound, reference = FINGERPRINTS[one.name]
        value = statistics.get(one.key, {}).get(statistic)
        if value is None:
            values = []
            for name in train[:: max(1, len(train) // 8)][:8]:
                with _opened(path := directory / f"{name}.hdf5") as file:
                    values.append(float(getattr(_plane(file, one.key, path, "iuf", card.size), statistic)()))
            value = sum(values) / len(values) if statistic == "mean" else max(values)
        proven = proven and value < bound
        seen.append(f"the {statistic} of {one.key!r} is {value:.4g}, that of {one.name} under {bound:g}")
        references.append(reference)
    return proven and bool(seen), ", ".join([*seen, *dict.fromkeys(references)])


def _digest(card: DatasetCard, bands: Sequence[Band], files: Sequence[Path], samples: Sequence[tuple[str, int]]) -> str:
    """sha256 over name and revision, keys, metadata files, sample names and file sizes (not the names given to the keys)."""
    digest = hashlib.sha256()
    head = json.dumps([card.name, card.revision, [one.key for one in bands], samples])
    for part in (head.encode(), *(part for path in sorted(files) for part in (path.name.encode(), _bytes(path)))):
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()
