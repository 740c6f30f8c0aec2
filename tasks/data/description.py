"""What the TOML file of a `folder` data set says, checked, and the samples it leads to. Standard library only.

No image is opened. The keys are described in `folder.py`. Every mistake is a `UserError` that names the file.
"""

import csv
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from models.common.errors import UserError, choose
from models.common.spectral import UNITS, Band, band
from tasks.data.dataset import SPLITS

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
SKIP = "-"
COMPANIONS = {  # of the layouts with more than one file per sample: the keys that say where they lie, and the nouns
    "image-mask": {"images": "image", "masks": "mask"},
    "before-after-label": {"before": "image", "after": "later date", "label": "label"},
}
LAYOUTS = ("class-folders", *COMPANIONS)
CHANGE = ["no change", "change"]
KEYS: dict[str, Any] = {
    "name": str,
    "title": str,
    "root": str,
    "layout": str,
    "images": str,
    "masks": str,
    "before": str,
    "after": str,
    "label": str,
    "classes": list,
    "mask_values": list,
    "bands": list,
    "unit": str,
    "gsd": (int, float),
    "size": int,
    "modality": str,
    "split": dict,
    "ignore": int,
    "nodata": (int, float),
    "drop_alpha": bool,
    "licence": str,
    "citation": str,
}
REQUIRED = ("name", "layout", "bands", "split")


class Entry(NamedTuple):
    """One sample: its name (the image's path below the root), its files, and its class (-1 where a mask holds it).

    `after` is the image of the later date, of pairs alone.
    """

    name: str
    image: Path
    mask: Path | None
    number: int
    after: Path | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        """The image, or those of both dates."""
        return (self.image,) if self.after is None else (self.image, self.after)


def load(path: Path) -> tuple[dict[str, Any], Path]:
    """Read and check the TOML file: its table, and the root folder of the images."""
    if not path.is_file():
        raise UserError(f"no data-set description {str(path)!r}")
    try:
        description = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    for key, value in description.items():
        expected = KEYS[choose(f"key of {path.name}", key, KEYS)]
        texts = key == "classes" and not all(isinstance(entry, str) for entry in value)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool) or texts:
            raise UserError(f"{path}: `{key}` cannot be {value!r}; the head of tasks/data/folder.py describes the keys")
    layout = description.get("layout", "")
    if layout == "before-after-label":
        description.setdefault("classes", CHANGE)
    needed = REQUIRED + (
        ("images", "masks", "classes") if layout == "image-mask" else tuple(COMPANIONS.get(layout, ()))
    )
    missing = [f"`{key}`" for key in needed if key not in description]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    choose(f"layout in {path.name}", layout, LAYOUTS)
    if not re.fullmatch(r"[\w.-]+", description["name"]):
        raise UserError(
            f"{path}: `name` is {description['name']!r}, but only letters, digits, dots, dashes and _ are allowed"
        )
    for key in ("images", "masks", "before", "after", "label"):
        if Path(description.get(key, "*")).is_absolute():
            raise UserError(f"{path}: `{key}` is a path below `root`, not {description[key]!r}")
    classes, values = description.get("classes", ()), description.get("mask_values")
    if len(set(classes)) < len(classes) or (values is not None and len(set(values)) != len(classes)):
        raise UserError(f"{path}: `classes` and `mask_values` name each class once, one value per class")
    if layout == "before-after-label" and len(classes) != 2:
        raise UserError(f"{path}: `classes` of before and after are two, no change and change")
    root = (path.parent / description.get("root", ".")).resolve()
    if not root.is_dir():
        raise UserError(f"{path}: the folder {root} is missing; set `root`")
    return description, root


def declared_bands(path: Path, description: Mapping[str, Any]) -> tuple[Band, ...]:
    """The bands that are read, in the order of the files; `key` is the band's number in the file, from 1."""
    found = []
    for number, entry in enumerate(description["bands"], 1):
        if entry == SKIP:
            continue
        table = {"name": entry} if isinstance(entry, str) else dict(entry)
        for key in table:
            choose(f"key of a band in {path.name}", key, ("name", "unit", "wavelength", "bandwidth", "gsd"))
        name, unit = table.get("name"), table.get("unit", description.get("unit"))
        if not name or not unit:
            raise UserError(f"{path}: band {number} needs a name and a unit ({', '.join(UNITS)})")
        known = band(name, str(number), choose(f"unit in {path.name}", unit, UNITS))
        found.append(
            replace(known, **{key: float(table[key]) for key in ("wavelength", "bandwidth", "gsd") if key in table})
        )
    if not found or len({entry.name for entry in found}) < len(found):
        raise UserError(f"{path}: `bands` is empty or names a band twice")
    return tuple(found)


def index(path: Path, description: Mapping[str, Any], root: Path) -> tuple[tuple[str, ...], dict[str, list[Entry]]]:
    """The classes, and the samples of each split, in the order of their paths. Opens no image."""
    split = description["split"]
    kind = next((key for key in ("rule", "folders", "lists") if key in split), None)
    if kind is None:
        raise UserError(f"{path}: `split` needs a `rule`, `folders` or `lists`")
    if kind == "folders":
        below = {name: root / folder for name, folder in named_splits(path, split[kind]).items()}
    else:
        below = {"": root}
    for folder in below.values():
        if not folder.is_dir():
            raise UserError(f"{path}: the folder {folder} is missing")
    classes = tuple(
        description.get("classes") or sorted({entry.name for top in below.values() for entry in folders(top)})
    )
    found = {name: sorted(samples(path, description, root, folder, classes)) for name, folder in below.items()}
    splits: dict[str, list[Entry]] = {name: [] for name in SPLITS}
    if kind == "folders":
        splits.update(found)
    elif kind == "lists":
        for name, names in named_splits(path, split[kind], (str, list)).items():
            splits[name] = chosen(path, names, found[""])
    else:
        splits.update(every_nth(path, split, found[""]))
    wanted = [name for name in SPLITS if name != "val" or kind != "rule" or split.get("val")]
    for name in wanted:
        if not splits[name]:
            raise UserError(f"{path}: the {name} split is empty")
    seen: dict[str, str] = {}
    for name, entries in splits.items():
        for entry in entries:
            if seen.setdefault(entry.name, name) != name:
                raise UserError(f"{path}: {entry.name} is in the {seen[entry.name]} and in the {name} split")
    return classes, splits


def named_splits(path: Path, table: Mapping[str, Any], kinds: Any = str) -> Mapping[str, Any]:
    """The table {train, val, test}, complete, with no other key, and with values of these kinds."""
    for name in table:
        choose(f"split in {path.name}", name, SPLITS)
    missing = [name for name in SPLITS if not isinstance(table.get(name), kinds)]
    if missing:
        raise UserError(f"{path}: `split` names no {' and no '.join(missing)}")
    return table


def every_nth(path: Path, split: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Every `test`-th sample is test; of those left every `val`-th is validation (none without `val`)."""
    choose(f"split rule in {path.name}", split["rule"], ("every-nth",))
    for key in split:
        choose(f"key of split in {path.name}", key, ("rule", "test", "val"))
    test, val = split.get("test", 0), split.get("val", 0)
    if not isinstance(test, int) or not isinstance(val, int) or test < 2 or val < 0 or val == 1:
        raise UserError(f"{path}: every-nth needs `test`, and `val` where there is one, to be whole numbers from 2")
    rest = [entry for number, entry in enumerate(entries, 1) if number % test]
    validation = [entry for number, entry in enumerate(rest, 1) if val and number % val == 0]
    train = [entry for number, entry in enumerate(rest, 1) if not val or number % val]
    return {"train": train, "val": validation, "test": list(entries[test - 1 :: test])}


def chosen(path: Path, names: str | list[Any], entries: Sequence[Entry]) -> list[Entry]:
    """The samples of one split: those that a file beside the description lists, or those that match these patterns."""
    if isinstance(names, str):
        return listed(path.parent / names, entries)
    for pattern in names:
        if not any(fnmatchcase(entry.name, str(pattern)) for entry in entries):
            raise UserError(f"{path}: no image is named {pattern!r} (`*` stands for anything)")
    return [entry for entry in entries if any(fnmatchcase(entry.name, str(pattern)) for pattern in names)]


def listed(file: Path, entries: Sequence[Entry]) -> list[Entry]:
    """The samples that a text file (a name a line) or a CSV file (column `name`) lists, in its order."""
    if not file.is_file():
        raise UserError(f"the list {file} is missing")
    text = file.read_text(encoding="utf-8")
    if file.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines())
        if "name" not in (rows.fieldnames or ()):
            raise UserError(f"{file} has no column `name`")
        names = [row["name"] for row in rows]
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    known: dict[str, set[Entry]] = {}
    for entry in entries:
        path = Path(entry.name)
        for alias in {entry.name, path.with_suffix("").as_posix(), path.name, path.stem}:
            known.setdefault(alias, set()).add(entry)
    for name in names:
        if len(known.get(name, ())) != 1:
            raise UserError(f"{file}: {name!r} stands for {len(known.get(name, ()))} images, not for one")
    return [next(iter(known[name])) for name in names]


def folders(top: Path) -> list[Path]:
    """The folders in `top` that are not hidden."""
    return sorted(entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The image files in `folder` that match `pattern`."""
    return sorted(entry for entry in folder.glob(pattern) if entry.suffix.lower() in SUFFIXES and entry.is_file())


def samples(
    path: Path, description: Mapping[str, Any], root: Path, top: Path, classes: tuple[str, ...]
) -> Iterator[Entry]:
    """The samples below `top`, in no particular order."""
    if description["layout"] in COMPANIONS:
        for image, *others in companions(path, description, top):
            after = others[0] if len(others) == 2 else None
            yield Entry(image.relative_to(root).as_posix(), image, others[-1], -1, after)
        return
    for folder in folders(top):
        if folder.name not in classes:
            raise UserError(f"{path}: the folder {folder} is not among `classes`")
        for image in images_in(folder, description.get("images", "*")):
            yield Entry(image.relative_to(root).as_posix(), image, None, classes.index(folder.name))


def companions(path: Path, description: Mapping[str, Any], top: Path) -> Iterator[tuple[Path, ...]]:
    """Every image with its mask, or with the later date and the label: files of one stem in folders, or by patterns."""
    keys = COMPANIONS[description["layout"]]
    first, *others = (description[key] for key in keys)
    found: list[tuple[Path, ...]] = []
    stars = {place.count("*") for place in (first, *others)}
    if stars == {0}:
        for folder in (first, *others):
            if not (top / folder).is_dir():
                raise UserError(f"{path}: the folder {top / folder} is missing")
        of_stem = {folder: {file.stem: file for file in images_in(top / folder)} for folder in others}
        for image in images_in(top / first):
            found.append((image, *(of_stem[folder].get(image.stem) or top / folder / image.name for folder in others)))
    elif stars == {1}:
        start, end = first.split("*")
        relative = [image.relative_to(top).as_posix() for image in images_in(top, first)]
        middle = [name[len(start) : len(name) - len(end)] for name in relative]
        found = [
            (top / name, *(top / place.replace("*", part) for place in others)) for name, part in zip(relative, middle)
        ]
    else:
        named = " and ".join(f"`{key}`" for key in keys)
        raise UserError(f"{path}: {named} are folders, or patterns with one `*` each")
    for files in found:
        for noun, file in zip(keys.values(), files):
            if not file.is_file():
                raise UserError(f"{path}: {files[0]} has no {noun} {file}")
        yield files


def digest(path: Path, root: Path, entries: Iterable[Entry]) -> str:
    """sha256 over the description and every file's path below the root and size in bytes."""
    total = hashlib.sha256(path.read_bytes())
    for entry in sorted(entries):
        for file in (*entry.images, entry.mask):
            if file is not None:
                total.update(f"\n{file.relative_to(root).as_posix()} {file.stat().st_size}".encode())
    return total.hexdigest()
