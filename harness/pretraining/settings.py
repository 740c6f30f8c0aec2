"""What a training is: recipe and settings, how long it takes, what makes it another one. No torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from models.common.errors import UserError
from models.common.files import write_whole

IDENTITY = "training.json"
REFERENCE_BATCH = 256  # for which both papers state the learning rate; it grows with the batch


class Recipe(Protocol):
    """What the trainer reads of a method's recipe, a frozen dataclass; the rest is the method's."""

    @property
    def batch(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def warmup_epochs(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def minimum_learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> tuple[float, float]: ...
    @property
    def clip(self) -> float: ...
    @property
    def clip_mode(self) -> str: ...
    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class Settings:
    """One training. `recipe` decides what is learnt and how; the rest is where, how long, and in which parts.

    `name` is the method's and that of the file it ends in. `batch` of the recipe counts the images of one step, over all
    processes and `accumulate` parts. `steps` replaces the recipe's epochs, and shortens the warm-up with them.
    `repeats`: items of an epoch per image (X-STARS: one per sensor). `save_every` 0: every twentieth of the way, at least
    50 steps. `probe_every` 0: every tenth of the way. `facts` are what else makes this training another one (digests of
    teacher and initial weights).
    """

    name: str
    recipe: Recipe
    steps: int | None = None
    accumulate: int = 1
    seed: int = 0
    device: str = "cpu"
    workers: int = 0
    launcher: str = "none"
    save_every: int = 0
    probe_every: int = 0
    on_device: bool = False
    repeats: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("accumulate", 1), ("workers", 0), ("save_every", 0), ("probe_every", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} is below {least}")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"--steps {self.steps} is below 1")


@dataclass(frozen=True)
class Timetable:
    """Steps of an epoch, of all, and of the warm-up; the peak of the learning rate; when to save and to probe."""

    epoch_steps: int
    total: int
    warmup: int
    peak: float
    save_every: int
    probe_every: int

    @classmethod
    def of(cls, settings: Settings, images: int) -> "Timetable":
        """For a set of `images`. Raises `UserError` where it does not fill one batch."""
        recipe = settings.recipe
        epoch_steps = images * settings.repeats // recipe.batch
        if not epoch_steps:
            raise UserError(
                f"the data hold {images * settings.repeats} images, fewer than the {recipe.batch} of a batch: give more, "
                "or a smaller --batch"
            )
        whole = recipe.epochs * epoch_steps
        total = settings.steps or whole
        share = recipe.warmup_epochs / recipe.epochs
        return cls(
            epoch_steps,
            total,
            round(min(1.0, share) * total),
            recipe.learning_rate * recipe.batch / REFERENCE_BATCH,
            settings.save_every or max(50, total // 20),
            settings.probe_every or max(1, total // 10),
        )


def identity(settings: Settings, total: int, images: int, digest: str) -> dict[str, Any]:
    """Everything that decides what comes out, as plain JSON; device, workers and processes do not."""
    found = {
        "method": settings.name,
        "recipe": asdict(settings.recipe),  # type: ignore[call-overload]
        "steps": total,
        "accumulate": settings.accumulate,
        "seed": settings.seed,
        "images": images,
        "data": digest,
        **settings.facts,
    }
    return json.loads(json.dumps(found))


def claim(out: Path, wanted: Mapping[str, Any], begun: bool) -> None:
    """Make `out` the folder of this training. Raises `UserError` where it is another's, naming what differs.

    What another training left before its first checkpoint (`begun` is False) is given up.
    """
    path = out / IDENTITY
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    if not path.is_file() or not begun:
        if not path.is_file() and out.is_dir() and any(out.glob("*.pth")):
            raise UserError(f"{out} holds checkpoints that are not of this training; choose another --out")
        try:
            write_whole(path, json.dumps(wanted, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"--out {out} cannot be written ({error.strerror})") from error
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); choose another --out") from error
    differing = differences(found, wanted)
    if differing:
        raise UserError(
            f"{out} holds a training with another recipe ({'; '.join(differing[:3])}"
            f"{'; ...' if len(differing) > 3 else ''}): choose another --out, or repeat its settings"
        )


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """`name: old, now new` for every entry that differs, those of the recipe by their own names."""
    flat = [
        {name: value for name, value in entry.items() if name != "recipe"} | entry["recipe"]
        for entry in (found, wanted)
    ]
    names = {**flat[0], **flat[1]}
    return [
        f"{name}: {_short(flat[0].get(name))}, now {_short(flat[1].get(name))}"
        for name in names
        if flat[0].get(name) != flat[1].get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:20] + "..."


def product_facts(checkpoint: Path, digest: str) -> dict[str, Any] | None:
    """The provenance that `pretrain` wrote beside a checkpoint, if it is of this very file (sha256 `digest`)."""
    try:
        facts = json.loads((checkpoint.parent / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("checkpoint_sha256") == digest else None
