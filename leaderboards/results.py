"""The record of a run and the journal that keeps it: one atomic JSON file per run, its arrays beside it.

Standard library only at module level, so that planning answers at once; numpy is imported where arrays are touched.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboards.files import JournalError, lock, refusal, staged, sync_folder, write_atomically

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1
CURRENT = re.compile(r"[0-9a-f]{16}\.json")  # history (`<run_id>.<n>.json`) and temporary files do not match


@dataclass(frozen=True)
class Identity:
    """What makes a run this run. Device, workers and batch size are not in it: they are provenance.

    `weights` is `random-<seed>`, `none`, or the sha256 of the checkpoint. `switches` holds, flat, every switch that can
    change the numbers, as JSON values. `split_digest` stands for the sample names before any of `draw`'s chance enters,
    since draws of one row are averaged. `limit` is the cap on images per split (None: all).
    """

    model: str
    variant: str
    weights: str
    card_revision: int
    mode: str
    dataset: str
    dataset_version: str
    split_digest: str
    task: str
    protocol: str
    switches: Mapping[str, Any] = field(hash=False)
    train_fraction: str
    draw: int
    seed: int | None
    limit: int | None
    precision: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "switches", _plain(self.switches))

    @property
    def run_id(self) -> str:
        """The first 16 hex digits of the sha256 of the canonical JSON of all fields."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()[:16]

    @property
    def row_id(self) -> str:
        """The `run_id` without seed and draw: runs that share it are averaged."""
        return replace(self, seed=None, draw=0).run_id


def _plain(value: Any) -> Any:
    """JSON values of one spelling: sorted keys, tuples as lists, 5.0 as 5 (JSON has one kind of number)."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _canonical(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Record:
    """One run. `status`: `ok` (`metrics` are finite, `primary` is one of them) or `failed` (`reason` says why).

    `modality` is the data set's group (`optical` or `ms`). `provenance` holds what may differ between two runs of the
    same content: commit, versions, device, times, memory, warnings, the transform, and `label`, the caller's words for
    the row. `arrays` names the per-sample arrays kept beside the record; the journal fills it.
    """

    identity: Identity
    status: str
    metrics: Mapping[str, float]
    primary: str = ""
    modality: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    arrays: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `JournalError` for an unknown status, a missing reason or primary metric, a NaN or infinite metric."""
        name = f"{self.identity.model} on {self.identity.dataset} ({self.identity.task}, run {self.identity.run_id})"
        if self.status not in ("ok", "failed"):
            raise JournalError(f"{name}: status {self.status!r} is neither ok nor failed")
        if self.status == "failed" and not self.reason:
            raise JournalError(f"{name}: a failed run needs its reason")
        if self.status == "ok" and self.primary not in self.metrics:
            known = ", ".join(self.metrics) or "none"
            raise JournalError(f"{name}: the primary metric {self.primary!r} is not among the metrics ({known})")
        for metric, value in self.metrics.items():
            if not math.isfinite(value):
                raise JournalError(f"{name}: {metric} is {value}; record the run as failed instead")

    def to_json(self) -> str:
        """The file's text. Everything but `provenance` is the same for two runs of the same content."""
        self.check()
        facts = {"schema": SCHEMA, "run_id": self.identity.run_id, **asdict(self)}
        facts["metrics"] = {name: float(value) for name, value in self.metrics.items()}
        return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str, path: Path) -> "Record":
        """Read one file. Raises `JournalError` if it is damaged, was edited, or comes from a newer version."""
        try:
            facts = json.loads(text)
            schema, run_id = facts.pop("schema"), facts.pop("run_id")
            if isinstance(schema, int) and schema > SCHEMA:
                raise JournalError(
                    f"{path} was written by a newer eo-harness (schema {schema}, here {SCHEMA}): upgrade eo-harness, "
                    "or use another folder for the runs"
                )
            facts["identity"] = Identity(**facts["identity"])
            facts["arrays"] = tuple(facts["arrays"])
            record = Record(**facts)
            record.check()
            if schema != SCHEMA or not record.identity.run_id == run_id == path.name.partition(".")[0]:
                raise ValueError("schema or run id do not fit the content")
        except JournalError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JournalError(f"{path} is damaged ({error}): delete it, and the run will be done again") from error
        return record


class Journal:
    """Records under `<directory>/records`: `<run_id>.json` and, where there are per-sample arrays, `<run_id>.npz`.

    The arrays are in place before the JSON appears, so a JSON file means that both are whole. Nothing is lost: a record
    that another one supersedes stays as `<run_id>.<n>.json` (and `.npz`), n counting from 1.
    """

    def __init__(self, directory: Path | str) -> None:
        self.folder = Path(directory) / "records"

    def append(self, record: Record, samples: "Mapping[str, np.ndarray] | None" = None, *, force: bool = False) -> bool:
        """Keep a run; True if it is now the current record of its identity.

        A failed record gives way to any later one. An ok record gives way only to an ok one, and only with `force`:
        otherwise the newer is dropped if it is ok (same identity, same content) and kept in the history if it failed.
        Raises `JournalError` if the record is unfit or cannot be written (a full disk, say); nothing half-written
        remains.
        """
        run_id = record.identity.run_id
        record = replace(record, arrays=tuple(sorted(samples or ())))
        text, data = record.to_json().encode(), _packed(samples) if samples else None
        target = self.folder / f"{run_id}.json"
        with refusal(target), lock(self.folder):
            current = self._read(target)
            if current and current.status == "ok" and not (force and record.status == "ok"):
                if record.status == "failed":
                    write_atomically(self._history(run_id), text)
                return False
            packed = staged(target.with_suffix(".npz"), data) if data else nullcontext()
            with packed as arrays, staged(target, text) as document:
                if current:
                    self._keep(run_id)
                if arrays:
                    os.replace(arrays, target.with_suffix(".npz"))
                else:
                    target.with_suffix(".npz").unlink(missing_ok=True)
                sync_folder(self.folder)  # the arrays' name is on the disk before the record's
                os.replace(document, target)
                sync_folder(self.folder)
        return True

    def done(self) -> set[str]:
        """The run ids that need not run again."""
        return {record.identity.run_id for record in self.records() if record.status == "ok"}

    def records(self) -> list[Record]:
        """Every current record, ok or failed, by run id. Raises `JournalError` naming a file that is not whole."""
        if not self.folder.is_dir():
            return []
        paths = sorted(path for path in self.folder.iterdir() if CURRENT.fullmatch(path.name))
        return [record for record in map(self._read, paths) if record]

    def samples(self, record: Record) -> "dict[str, np.ndarray]":
        """The per-sample arrays of a current record, by name; empty if it has none."""
        import zipfile

        import numpy as np

        if not record.arrays:
            return {}
        path = self.folder / f"{record.identity.run_id}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in record.arrays}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            remedy = f"delete it and {path.with_suffix('.json').name}, and the run will be done again"
            raise JournalError(f"{path} is damaged or missing ({error}): {remedy}") from error

    def _read(self, path: Path) -> Record | None:
        try:
            return Record.from_json(path.read_text(encoding="utf-8", errors="replace"), path)
        except FileNotFoundError:  # not there, or another process is superseding it at this very moment
            return None
        except OSError as error:
            reason = error.strerror or error
            raise JournalError(f"cannot read {path}: {reason}; mend that, or use another folder") from error

    def _history(self, run_id: str) -> Path:
        numbered = (self.folder / f"{run_id}.{number}.json" for number in count(1))
        return next(path for path in numbered if not path.exists())

    def _keep(self, run_id: str) -> None:
        """Move the current record into the history, its arrays first. After a crash here the run is done again."""
        kept, arrays = self._history(run_id), self.folder / f"{run_id}.npz"
        if arrays.exists():
            write_atomically(kept.with_suffix(".npz"), arrays.read_bytes())
        os.replace(self.folder / f"{run_id}.json", kept)


def _packed(samples: "Mapping[str, np.ndarray]") -> bytes:
    """The arrays as the bytes of an npz file."""
    import io

    import numpy as np

    for name, array in samples.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects, which only a pickle could keep")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **samples)  # type: ignore[arg-type]
    return buffer.getvalue()
