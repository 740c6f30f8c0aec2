"""Every sample of a data set looked at once: what cannot be read, what is missing, empty, odd, twice there or on no scale."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from models.common.errors import UserError
from models.common.spectral import Band
from tasks.common.canaries import Canary
from tasks.data.audit_facts import Audit, BandFacts, Complaint, cap, listed
from tasks.data.dataset import SPLITS, Dataset

if TYPE_CHECKING:
    import numpy as np


class Samples:
    """Every sample is looked at once; `conclude` draws up what was seen. Holds digests and counts, no pixels."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.sensors: dict[str, list[Band]] = {}
        for band in dataset.card.bands:
            self.sensors.setdefault(sensor_of(band), []).append(band)
        self.canaries = {sensor: Canary(bands) for sensor, bands in self.sensors.items()}
        self.refused: dict[str, list[str]] = {}  # by reason
        self.missing: dict[str, list[str]] = {}  # what is no number, by band and extent
        self.extremes: dict[str, tuple[float, float]] = {}  # by band
        self.empty: list[str] = []
        self.sizes: dict[tuple[int, int], list[str]] = {}
        self.dtypes: dict[str, dict[str, list[str]]] = {}  # sensor -> dtype -> samples
        self.twins: dict[bytes, list[str]] = {}
        self.held: dict[str, dict[int, int]] = {}  # sample -> class -> pixels (0 without a mask)

    def look(self, name: str) -> None:
        """Read one sample and its label."""
        import numpy as np

        digest, shapes, flat = hashlib.blake2b(digest_size=16), [], []
        for sensor, patch in self._planes(name):
            digest.update(sensor.encode() + str(patch.shape).encode() + np.ascontiguousarray(patch).tobytes())
            shapes.append((int(patch.shape[-2]), int(patch.shape[-1])))
            self.dtypes.setdefault(sensor, {}).setdefault(str(patch.dtype), []).append(name)
            batch = patch if patch.ndim == 4 else patch[None]
            flat.append(bool((batch.min(axis=(2, 3)) == batch.max(axis=(2, 3))).all()))
            if self._measure(name, sensor, patch):
                self.canaries[sensor].watch(batch)
        if shapes:
            self.sizes.setdefault(shapes[0], []).append(name)
            if all(flat):
                self.empty.append(name)
            else:
                self.twins.setdefault(digest.digest(), []).append(name)
        self._label(name, shapes[0] if shapes else None)

    def _planes(self, name: str) -> "Iterator[tuple[str, np.ndarray]]":
        """The sample by sensor, each as it is stored; one that cannot be read is noted, and the others are read."""
        unusable = getattr(self.dataset, "unusable", lambda name, bands: "")
        for sensor, bands in self.sensors.items():
            wanted = [band.name for band in bands]
            try:
                if reason := unusable(name, wanted):
                    self._refuse(name, f"samples that a run leaves out: {reason}")
                else:
                    yield sensor, self.dataset.read(name, wanted)
            except UserError as error:
                self._refuse(name, str(error))

    def _refuse(self, name: str, reason: str) -> None:
        self.refused.setdefault(reason, []).append(name)

    def _measure(self, name: str, sensor: str, patch: "np.ndarray") -> bool:
        """Note the extremes of the finite values of every band, and what is no number; False if nothing is one."""
        import numpy as np

        bands = self.sensors[sensor]
        planes = np.moveaxis(patch, -3, 0).reshape(len(bands), -1)
        missing = ~np.isfinite(planes) if patch.dtype.kind == "f" else np.zeros(planes.shape, dtype=bool)
        if missing.all():
            self.missing.setdefault(f"{sensor}: nothing but NaN in", []).append(name)
            return False
        for band, values, none in zip(bands, planes, missing, strict=True):
            if none.any():
                what = "nothing but NaN" if none.all() else "NaN or infinite pixels"
                self.missing.setdefault(f"{band.name}: {what} in", []).append(name)
            if not none.all():
                low, high = float(values[~none].min()), float(values[~none].max())
                seen = self.extremes.setdefault(band.name, (low, high))
                self.extremes[band.name] = min(low, seen[0]), max(high, seen[1])
        return True

    def _label(self, name: str, shape: tuple[int, int] | None) -> None:
        import numpy as np

        try:
            label = np.asarray(self.dataset.label(name))
        except UserError as error:
            self._refuse(name, str(error))
            return
        kind = self.dataset.card.label
        if kind in ("mask", "change"):
            if shape and label.shape != shape:
                self._refuse(name, "the mask is of another size than the image")
            values, counts = np.unique(label, return_counts=True)
            pixels = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
            self.held[name] = {value: count for value, count in pixels.items() if value != self.dataset.card.ignore}
            outside = [value for value in self.held[name] if not 0 <= value < self.dataset.card.num_classes]
        elif kind == "multilabel":
            self.held[name], outside = dict.fromkeys(map(int, np.flatnonzero(label)), 0), []
        else:
            self.held[name] = {int(label): 0}
            outside = [value for value in self.held[name] if not 0 <= value < self.dataset.card.num_classes]
        if outside:
            self._refuse(name, f"the label holds {outside[0]}, which is no class")

    def conclude(self, found: Audit, splits: Mapping[str, Sequence[str]]) -> None:
        """Enter everything into `found`."""
        found.complaints += [Complaint(reason, tuple(dict.fromkeys(names))) for reason, names in self.refused.items()]
        for text, names in self.missing.items():
            found.complaints.append(Complaint(f"{text} {len(names)} of {found.read} samples", tuple(names)))
        if self.empty:
            text = f"{len(self.empty)} of {found.read} samples hold one value per band and nothing else"
            found.complaints.append(Complaint(text, tuple(self.empty)))
        found.complaints += self._odd_sizes(found.read)
        for sensor, dtypes in self.dtypes.items():
            if len(dtypes) > 1:
                usual = max(dtypes, key=lambda dtype: len(dtypes[dtype]))
                found.complaints += [
                    Complaint(f"{sensor}: {len(names)} samples are {dtype} where the others are {usual}", tuple(names))
                    for dtype, names in dtypes.items()
                    if dtype != usual
                ]
        for canary in self.canaries.values():
            for seen in canary.state["bands"].values():
                seen["nan"] = 0  # said above, with the names of the samples
            found.complaints += [Complaint(line) for line in canary.warnings()]
        self._duplicates(found, splits)
        found.sizes = {size: len(names) for size, names in sorted(self.sizes.items())}
        found.bands = [self._band(band) for band in self.dataset.card.bands]
        self._histogram(found, splits)

    def _odd_sizes(self, total: int) -> Iterator[Complaint]:
        if len(self.sizes) < 2:
            return
        usual = max(self.sizes, key=lambda size: (len(self.sizes[size]), size))
        odd = {name: size for size, names in sorted(self.sizes.items()) for name in names if size != usual}
        text = f"{len(odd)} of {total} images are not {usual[0]}x{usual[1]} like the others"
        yield Complaint(text, tuple(f"{name} {rows}x{columns}" for name, (rows, columns) in odd.items()))

    def _duplicates(self, found: Audit, splits: Mapping[str, Sequence[str]]) -> None:
        split_of = {name: split for split, names in splits.items() for name in names}
        across: dict[tuple[str, ...], list[str]] = {}
        within = 0
        for names in self.twins.values():
            places = tuple(split for split in SPLITS if split in {split_of[name] for name in names})
            if len(places) > 1:
                across.setdefault(places, []).append(" = ".join(names))
            else:
                within += len(names) - 1
        for places, groups in across.items():
            text = f"the same pixels stand in {' and '.join(places)}: {len(groups)} images"
            found.complaints.append(Complaint(text, tuple(groups)))
        if within:
            found.notes.append(f"{within} images repeat the pixels of another one in the same split")

    def _band(self, band: Band) -> BandFacts:
        low, high = self.extremes.get(band.name, (None, None))
        return BandFacts(band.name, band.key, band.unit, low, high, tuple(sorted(self.dtypes.get(sensor_of(band), {}))))

    def _histogram(self, found: Audit, splits: Mapping[str, Sequence[str]]) -> None:
        classes = self.dataset.card.classes
        for split, names in splits.items():
            images, pixels = Counter[int](), Counter[int]()
            for name in names:
                held = self.held.get(name, {})
                images.update(held.keys())
                pixels.update(held)
            found.classes[split] = {one: (images[index], pixels[index]) for index, one in enumerate(classes)}
        seen = {one for table in found.classes.values() for one, (count, _) in table.items() if count}
        if never := [one for one in classes if one not in seen]:
            found.notes.append(f"no sample of {listed(never)}{cap(found)}")
        for split in [split for split in SPLITS if splits[split] and seen]:
            lacking = [one for one in classes if one in seen and not found.classes[split][one][0]]
            if lacking and split == "train":
                text = f"no training sample of {listed(lacking)}, which other splits hold{cap(found)}"
                found.complaints.append(Complaint(text))
            elif lacking:
                found.notes.append(f"no {split} sample of {listed(lacking)}{cap(found)}")


def sensor_of(band: Band) -> str:
    """`S2` of `S2:B04`: bands of one sensor are read, and missing, together."""
    return band.name.partition(":")[0]
