"""What is wrong with a data set on disk: every file is read through its reader and held against the card. Prints nothing.

A run refuses the first file that it cannot use; an audit goes on and lists them all. A `Complaint` is what a run would
refuse or warn about, or what makes its numbers worth less; notes are facts that need no mending.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from models.common.errors import UserError
from tasks.data import catalogue, description, folder, geobench
from tasks.data.audit_facts import Audit, Complaint, listed
from tasks.data.audit_samples import Samples
from tasks.data.dataset import SPLITS, Dataset, DatasetCard, with_validation
from tasks.data.reader import incomplete

Progress = Callable[[int, int], None]


def audit(card: DatasetCard, path: Path, limit: int | None = None, progress: Progress | None = None) -> Audit:
    """Read the data set at `path` (at most `limit` samples per split) and say what was found.

    `progress(done, total)` counts samples. Raises nothing that a damaged file could cause.
    """
    found = Audit(card, path, limit, whole=dict(zip(SPLITS, card.splits, strict=True)))
    try:
        dataset = catalogue.open_dataset(card, path, "corrected")
    except UserError as error:
        found.complaints.append(Complaint(f"it cannot be opened: {error}"))
        dataset = _salvaged(card, path)
    if card.family == "folder":
        _channels(found)
    partitions = _partitions(path) if card.family == "geobench" else {}
    found.complaints += _absent(path, partitions)
    if dataset is None:
        return found
    found.card, found.version = dataset.card, dataset.version
    # That sizes differ is said below, with names.
    said = [line for line in dataset.warnings if not line.startswith("images of ")]
    found.complaints += [Complaint(line) for line in (*said, *_counts(dataset))]
    found.notes += getattr(dataset, "notes", [])
    splits = with_validation(dataset)
    if splits != dataset.splits:
        found.notes.append(f"validation is cut from train by this project: {len(splits['val'])} samples")
    found.splits = {split: len(names) for split, names in splits.items()}
    if card.family != "geobench" or not dataset.version:  # that reader has said it, unless it refused the set
        found.complaints += _shared_names(splits)
    chosen = {split: names[:limit] for split, names in splits.items()}
    samples = Samples(dataset)
    names = list(dict.fromkeys(name for split in SPLITS for name in chosen[split]))
    for number, name in enumerate(names, 1):
        samples.look(name)
        if progress:
            progress(number, len(names))
    found.read = len(names)
    samples.conclude(found, chosen)
    _vanishing(found, samples, partitions)
    return found


def _salvaged(card: DatasetCard, path: Path) -> Dataset | None:
    """A refused set as far as its files can be found, unchecked; None where that takes what the reader found missing."""
    if card.family == "folder":
        table, root = description.load(path)
        _, splits = description.index(path, table, root)
        return folder.FolderDataset(
            card=card,
            root=root,
            splits={split: tuple(entry.name for entry in splits[split]) for split in SPLITS},
            version="",
            entries={entry.name: entry for split in splits.values() for entry in split},
            channels=len(table["bands"]),
            mask_values=tuple(table.get("mask_values", range(card.num_classes))),
            nodata=table.get("nodata"),
        )
    if card.family == "geobench" and path.is_dir():
        here = sorted(file.stem for file in path.glob("*.hdf5"))
        known = _partitions(path).get("default_partition.json", {})
        splits = {
            ours: tuple(name for name in known.get(theirs, ()) if name in set(here))
            for theirs, ours in geobench.RELEASED_SPLITS.items()
        }
        listed = {name for names in splits.values() for name in names}
        splits["train"] += tuple(name for name in here if name not in listed)
        return geobench.GeobenchDataset(card, path, card.bands, splits, "")
    return None


def _channels(found: Audit) -> None:
    """Of a folder of one's own: images with another number of bands than declared. With `drop_alpha` that is a note."""
    table, root = description.load(found.path)
    _, splits = description.index(found.path, table, root)
    declared, of_count = len(table["bands"]), dict[int, list[str]]()
    for file in sorted({image for split in splits.values() for entry in split for image in entry.images}):
        try:
            with folder.opened(file) as source:
                of_count.setdefault(source.count, []).append(file.relative_to(root).as_posix())
        except UserError:
            continue  # reading it says why
    total = sum(map(len, of_count.values()))
    for count, names in sorted(of_count.items()):
        if count != declared:
            kind = " (RGBA among RGB)" if (count, declared) == (4, 3) and len(of_count) > 1 else ""
            text = f"{len(names)} of {total} images have {count} bands where {declared} are declared{kind}"
            if count == declared + 1 and table.get("drop_alpha"):
                found.notes.append(f"{text}; the last one is not read")
            else:
                found.complaints.append(Complaint(text, tuple(names)))


def _partitions(path: Path) -> dict[str, dict[str, list[str]]]:
    """The legible partition files of a GEO-Bench directory: file -> released split -> sample names."""
    found = {}
    for file in sorted(path.glob("*_partition.json")):
        try:
            stored = json.loads(file.read_bytes())
            found[file.name] = {split: [str(name) for name in names] for split, names in stored.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            continue  # opening the set says why
    return found


def _absent(path: Path, partitions: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[Complaint]:
    """What partitions name and the directory lacks, and what it holds and none of them names."""
    here = {file.stem for file in path.glob("*.hdf5")} if partitions else set()
    for file, splits in partitions.items():
        named = list(dict.fromkeys(name for names in splits.values() for name in names))
        absent = [name for name in named if name not in here]
        if absent:
            yield Complaint(f"{file} names {len(absent)} absent samples of {len(named)}", tuple(absent))
    unnamed = here - {name for splits in partitions.values() for names in splits.values() for name in names}
    if unnamed:
        yield Complaint(f"{len(unnamed)} of {len(here)} samples stand in no partition", tuple(sorted(unnamed)))


def _counts(dataset: Dataset) -> list[str]:
    try:
        known = incomplete(dataset.card, dataset.splits) if any(dataset.card.splits) else []
    except UserError as error:
        known = [str(error)]
    return [line for line in known if line not in dataset.warnings]


def _shared_names(splits: Mapping[str, Sequence[str]]) -> Iterator[Complaint]:
    for index, split in enumerate(SPLITS):
        for other in SPLITS[index + 1 :]:
            if both := set(splits[split]) & set(splits[other]):
                yield Complaint(f"{len(both)} samples of {split} are in {other} too", tuple(sorted(both)))


def _vanishing(found: Audit, samples: Samples, partitions: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Say which classes a released training subset loses; only where every label was read."""
    classes = samples.dataset.card.classes
    everything = {one for name in samples.dataset.splits["train"] for one in samples.held.get(name, {})}
    for file, splits in partitions.items():
        names = splits.get("train", ())
        if not file.endswith("x_train_partition.json") or not names or any(name not in samples.held for name in names):
            continue
        lost = sorted(everything - {one for name in names for one in samples.held[name]})
        if lost:
            told = [classes[one] for one in lost if 0 <= one < len(classes)]
            found.notes.append(f"{file}: its {len(names)} training samples lose {listed(told)}")
