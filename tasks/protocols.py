"""How a task is measured: the switches of every task, and protocols as named presets of them. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from models.common.bands import MISSING_BANDS
from models.common.errors import UserError, choose


@dataclass(frozen=True)
class Knn:
    """Switches of k-NN.

    `distance`: `cosine` (on L2-normalised features) or `euclidean`; `standardise`: `none`, or `train` (z-score with the
    train split's mean and standard deviation, before the distance). `temperature` belongs to the weighted vote. The
    defaults are X-STARS' k (arXiv 2405.09922) and DINO's vote (arXiv 2104.14294).
    """

    k: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    distance: str = "cosine"
    standardise: str = "none"
    temperature: float = 0.07

    def __post_init__(self) -> None:
        choose("distance of k-NN", self.distance, ("cosine", "euclidean"))
        choose("standardisation of k-NN", self.standardise, ("none", "train"))
        _require(all(k >= 1 for k in self.k), f"every k of k-NN must be 1 or more, got {self.k}")
        _require_ascending("k of k-NN", self.k)
        _require(self.temperature > 0, f"the temperature of k-NN must be above 0, got {self.temperature}")


@dataclass(frozen=True)
class Training:
    """Switches of the head-training loop (`tasks.common.fit`), whatever the head.

    All `learning_rates` are trained at once and the validation split picks one. The rate rises linearly from 0 over
    `warmup_epochs`, then follows `schedule`: `cosine` (half a cosine down to `minimum_learning_rate`) or `constant`.
    `momentum` is SGD's. `selection`: `best_val` keeps each head's best epoch on the validation split, `last` its last.
    """

    optimizer: str = "adamw"
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    momentum: float = 0.9
    weight_decay: float = 0.01
    epochs: int = 50
    warmup_epochs: int = 5
    schedule: str = "cosine"
    minimum_learning_rate: float = 1e-6
    batch: int = 64
    selection: str = "best_val"

    def __post_init__(self) -> None:
        choose("optimizer", self.optimizer, ("adamw", "sgd"))
        choose("learning-rate schedule", self.schedule, ("cosine", "constant"))
        choose("epoch selection", self.selection, ("best_val", "last"))
        _require_positive("learning rates", self.learning_rates)
        _require_ascending("learning rates", self.learning_rates)
        _require(self.epochs >= 1, f"epochs must be 1 or more, got {self.epochs}")
        _require(
            0 <= self.warmup_epochs < self.epochs,
            f"warm-up epochs must lie between 0 and epochs - 1 = {self.epochs - 1}, got {self.warmup_epochs}",
        )
        _require(self.batch >= 1, f"the batch must be 1 or more, got {self.batch}")
        _require(
            0 <= self.minimum_learning_rate <= min(self.learning_rates),
            f"the minimum learning rate must lie between 0 and the smallest rate, got {self.minimum_learning_rate}",
        )
        _require(0 <= self.momentum < 1, f"momentum must lie in [0, 1), got {self.momentum}")
        _require(self.weight_decay >= 0, f"weight decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True)
class LinearProbe(Training):
    """Switches of linear probing: those of `Training`, and what surrounds the loop.

    `standardise`: `train` (z-score with the train split's statistics) or `none`. `logistic` adds the exact
    L2-regularised solve over the values of `logistic_c` (the weight of the summed loss against half the squared
    weights, as in LIBLINEAR). `neck`, where a model offers some to be trained with the head (SatDiFuser): `default`, one
    by name, or `none`. `augmentation` of the training images: `none`, `flips` (horizontal and vertical, each
    with `flip_probability`) or `flips_rotation` (also a rotation drawn from +-`rotation_degrees`). `backbone_mode`:
    `eval`, or `train` (stochastic depth active in the training features). The two mappings hold what a protocol sets
    per data set.
    """

    standardise: str = "train"
    logistic: bool = True
    logistic_c: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    neck: str = "default"
    augmentation: str = "none"
    flip_probability: float = 0.5
    rotation_degrees: float = 90.0
    backbone_mode: str = "eval"
    learning_rate_by_dataset: Mapping[str, float] = field(default_factory=dict)
    augmentation_by_dataset: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("standardisation of the linear probe", self.standardise, ("none", "train"))
        choose("backbone mode", self.backbone_mode, ("eval", "train"))
        for augmentation in (self.augmentation, *self.augmentation_by_dataset.values()):
            choose("augmentation", augmentation, ("none", "flips", "flips_rotation"))
        _require_positive("values of C", self.logistic_c)
        _require_ascending("values of C", self.logistic_c)
        _require_positive(
            "learning rates by data set", tuple(self.learning_rate_by_dataset.values()), may_be_empty=True
        )
        _require(0 <= self.flip_probability <= 1, f"the flip probability must lie in 0..1, got {self.flip_probability}")
        _require(
            0 <= self.rotation_degrees <= 180, f"the rotation must lie in 0..180 degrees, got {self.rotation_degrees}"
        )

    def for_dataset(self, dataset: str) -> "LinearProbe":
        """The switches that hold on one data set, with nothing left to look up."""
        rate = self.learning_rate_by_dataset.get(dataset)
        return replace(
            self,
            learning_rates=self.learning_rates if rate is None else (rate,),
            augmentation=self.augmentation_by_dataset.get(dataset, self.augmentation),
            learning_rate_by_dataset={},
            augmentation_by_dataset={},
        )

    @property
    def uses_stored_features(self) -> bool:
        """False where the training features differ from epoch to epoch, so that the backbone must run in each."""
        return self.augmentation == "none" and self.backbone_mode == "eval"


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise UserError(sentence)


def _require_ascending(what: str, values: Sequence[float]) -> None:
    _require(len(values) > 0, f"the {what} are empty; name at least one")
    _require(all(a < b for a, b in pairwise(values)), f"the {what} must ascend without repeats, got {tuple(values)}")


def _require_positive(what: str, values: Sequence[float], may_be_empty: bool = False) -> None:
    _require(may_be_empty or len(values) > 0, f"the {what} are empty; name at least one")
    _require(all(value > 0 for value in values), f"the {what} must be above 0, got {tuple(values)}")


@dataclass(frozen=True)
class Protocol:
    """A named preset of every switch.

    `normalisation`: `model` or `dataset`; `input_size`: `model`, `native` or a side in pixels; `fit`: `resize` | `pad`;
    `missing_bands`: `error` | `zero` | `repeat`; `bands`: `all`, or `rgb` (every model sees red, green and blue alone);
    `band_names`: `corrected` | `as-released`; `pooled`: which vector stands for an image (`default`, `raw`, `mean`,
    `cls`), with exceptions per model; `swap_rgb_std` repeats a slip of DEO's evaluation code; `seeds` are those of heads.
    """

    name: str
    title: str
    weights: str = "official"
    normalisation: str = "model"
    input_size: str | int = "model"
    fit: str = "resize"
    missing_bands: str = "error"
    bands: str = "all"
    band_names: str = "corrected"
    pooled: str = "default"
    pooled_by_model: Mapping[str, str] = field(default_factory=dict)
    swap_rgb_std: bool = False
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    knn: Knn = field(default_factory=Knn)
    linear_probe: LinearProbe = field(default_factory=LinearProbe)

    def __post_init__(self) -> None:
        choose("normalisation", self.normalisation, ("model", "dataset"))
        choose("fit", self.fit, ("resize", "pad"))
        choose("policy for missing bands", self.missing_bands, MISSING_BANDS)
        choose("choice of bands", self.bands, ("all", "rgb"))
        choose("choice of band names", self.band_names, ("corrected", "as-released"))
        choose("pooled vector", self.pooled, ("default", "raw", "mean", "cls"))
        if isinstance(self.input_size, str):
            choose("input size", self.input_size, ("model", "native"))
        elif self.input_size < 1:
            raise UserError(f"input_size {self.input_size} is below 1 pixel")
        _require(len(set(self.seeds)) == len(self.seeds) > 0, f"seeds must be given, each once; got {self.seeds}")

    def pooled_of(self, model: str) -> str:
        """The pooled vector of one model (`name` or `name:variant`)."""
        return self.pooled_by_model.get(model, self.pooled)

    def seeds_of(self, task: str) -> tuple[int | None, ...]:
        """The seeds a task runs with; k-NN has nothing random in it and runs once, without seed."""
        return (None,) if task == "knn" else self.seeds

    def switches(self, task: str, dataset: str, model: str) -> dict[str, object]:
        """Every switch that can change the numbers of this task on this data set: part of a run's identity."""
        own = {"knn": self.knn, "linear_probe": self.linear_probe.for_dataset(dataset)}
        shared = ("normalisation", "input_size", "fit", "missing_bands", "bands", "band_names", "swap_rgb_std")
        flat: dict[str, object] = {name: getattr(self, name) for name in shared}
        flat["pooled"] = self.pooled_of(model)
        return flat | {f"{task}.{name}": _plain(value) for name, value in vars(own[task]).items()}

    def flat(self) -> dict[str, object]:
        """Every switch by its name on the command line, for printing and comparing."""
        flat: dict[str, object] = {}
        for name, value in vars(self).items():
            if isinstance(value, Knn | LinearProbe):
                flat |= {f"{name}.{inner}": _plain(setting) for inner, setting in vars(value).items()}
            elif name not in ("name", "title"):
                flat[name] = _plain(value)
        return flat

    def with_switches(self, assignments: Sequence[str]) -> "Protocol":
        """This protocol with `knn.distance=euclidean`-like assignments made; unknown switches and values are refused."""
        changes: dict[str, dict[str, object]] = {"": {}, "knn": {}, "linear_probe": {}}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"--set {assignment!r} is no SWITCH=VALUE")
            name = choose("switch", name.strip().replace("-", "_"), list(self.flat()))
            group, _, inner = name.rpartition(".")
            holder = getattr(self, group) if group else self
            changes[group][inner] = _parse(name, text.strip(), getattr(holder, inner))
            if inner in _TABLES:  # what is set by hand holds everywhere
                changes[group][_TABLES[inner]] = {}
        # Each group at once, since its switches are checked against each other.
        groups = {group: replace(getattr(self, group), **changes[group]) for group in ("knn", "linear_probe")}
        return replace(self, **changes[""], **groups)


_TABLES = {
    "augmentation": "augmentation_by_dataset",
    "learning_rates": "learning_rate_by_dataset",
    "pooled": "pooled_by_model",
}


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value


def _parse(name: str, text: str, current: object) -> object:
    """`text` as a value of the kind that the switch has now."""
    try:
        match current:
            case bool():
                return {"true": True, "false": False}[text.lower()]
            case tuple():
                kind = type(current[0])
                return tuple(kind(part) for part in text.split(",") if part)
            case Mapping():
                raise UserError(f"{name} is a table of the preset and cannot be set on the command line")
            case int() | float():
                return type(current)(text)
        return int(text) if name == "input_size" and text.isdigit() else text
    except (ValueError, KeyError):
        raise UserError(f"--set {name}={text}: not a value like {_plain(current)}") from None


_DEO_PROBE = LinearProbe(
    optimizer="adamw",
    learning_rates=(1e-3,),
    weight_decay=0.01,
    epochs=50,
    warmup_epochs=5,
    minimum_learning_rate=1e-6,
    batch=64,
    standardise="none",
    logistic=False,
    augmentation="flips",
    backbone_mode="train",
    learning_rate_by_dataset={"m-bigearthnet": 1e-3, "m-so2sat": 1e-3, "m-eurosat": 1e-2},
    augmentation_by_dataset={"m-bigearthnet": "flips_rotation"},
)
_XSTARS_PROBE = LinearProbe(
    optimizer="sgd",
    learning_rates=(1e-2,),
    momentum=0.9,
    weight_decay=0.0,
    epochs=100,
    warmup_epochs=0,
    minimum_learning_rate=0.0,
    batch=32,
    standardise="none",
    logistic=False,
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "clean",
            "ours, the default: eval-mode backbone, each model's own normalisation and size, learning rates swept on validation",
        ),
        Protocol(
            "demo",
            "like clean, for the synthetic twin: random weights, native size, one seed, three learning rates",
            weights="random",
            input_size="native",
            seeds=(0,),
            linear_probe=LinearProbe(batch=16, learning_rates=(1e-3, 1e-2, 1e-1)),
        ),
        Protocol(
            "deo-paper",
            "as DEO's authors evaluated: data-set z-score, native size, flips, backbone in train mode, raw pooled Swin features",
            normalisation="dataset",
            input_size="native",
            swap_rgb_std=True,
            pooled_by_model={"deo": "raw"},
            seeds=(0,),
            linear_probe=_DEO_PROBE,
        ),
        Protocol(
            "xstars-paper",
            "as X-STARS reports: RGB at 224, k-NN over six k, linear layer with learning rate 0.01 for 100 epochs",
            input_size=224,
            bands="rgb",
            seeds=(0,),
            linear_probe=_XSTARS_PROBE,
        ),
    )
}
