"""How a task is measured: protocols as named presets of the switches of every task. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace

from models.common.bands import MISSING_BANDS
from models.common.errors import UserError, choose
from tasks.data.dataset import DatasetCard
from tasks.switches import ChangeDetection, Dense, Knn, LinearProbe, Segmentation, check_input_size

DENSE = ("segmentation", "change_detection")


@dataclass(frozen=True)
class Protocol:
    """A named preset of every switch.

    `normalisation`: `model` or `dataset`; `input_size`: `model`, `native` or a side in pixels; `fit`: `resize` | `pad` (both
    for classification: dense tasks have their own); `missing_bands`: `error` | `zero` | `repeat`; `bands`: `all`, or `rgb`
    (every model sees red, green and blue alone); `band_names`: `corrected` | `as-released`; `pooled`: which vector stands
    for an image (`default`, `raw`, `mean`, `cls`), with exceptions per model; `swap_rgb_std` repeats a slip of DEO's
    evaluation code; `own_validation`: whether a validation split that this project cut from a released training split is
    used (`yes`), or its images train (`no`); `seeds` are those of linear probes, `dense_seeds` those of heads per pixel.
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
    own_validation: str = "yes"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    dense_seeds: tuple[int, ...] = (0, 1, 2)
    knn: Knn = field(default_factory=Knn)
    linear_probe: LinearProbe = field(default_factory=LinearProbe)
    segmentation: Segmentation = field(default_factory=Segmentation)
    change_detection: ChangeDetection = field(default_factory=ChangeDetection)

    def __post_init__(self) -> None:
        choose("normalisation", self.normalisation, ("model", "dataset"))
        choose("fit", self.fit, ("resize", "pad"))
        choose("policy for missing bands", self.missing_bands, MISSING_BANDS)
        choose("choice of bands", self.bands, ("all", "rgb"))
        choose("choice of band names", self.band_names, ("corrected", "as-released"))
        choose("pooled vector", self.pooled, ("default", "raw", "mean", "cls"))
        choose("use of validation splits of our own", self.own_validation, ("yes", "no"))
        check_input_size(self.input_size)
        for name in ("seeds", "dense_seeds"):
            seeds = getattr(self, name)
            if not 0 < len(set(seeds)) == len(seeds):
                raise UserError(f"{name} must be given, each once; got {seeds}")

    def pooled_of(self, model: str) -> str:
        """The pooled vector of one model (`name` or `name:variant`)."""
        return self.pooled_by_model.get(model, self.pooled)

    def seeds_of(self, task: str) -> tuple[int | None, ...]:
        """The seeds a task runs with; k-NN has nothing random in it and runs once, without seed."""
        return (None,) if task == "knn" else self.dense_seeds if task in DENSE else self.seeds

    def dense(self, task: str, dataset: str, model: str) -> Dense:
        """The switches of a task per pixel on one data set and for one model."""
        switches: Dense = getattr(self, task)
        return switches.on(dataset, model)

    def sizes(self, task: str, dataset: str, model: str) -> tuple[str | int, str]:
        """`input_size` and `fit` of one task."""
        if task not in DENSE:
            return self.input_size, self.fit
        switches = self.dense(task, dataset, model)
        return switches.input_size, switches.fit

    def primary(self, task: str, card: DatasetCard, model: str = "") -> str:
        """The metric that stands for a task on a data set in a table."""
        multilabel = card.label == "multilabel"
        match task:
            case "knn":
                return self.knn.primary(multilabel)
            case "linear_probe":
                return self.linear_probe.primary(multilabel)
            case "segmentation":
                return self.segmentation.on(card.name, model).primary(card.no_data >= 0)
        return self.change_detection.primary

    def switches(self, task: str, dataset: str, model: str) -> dict[str, object]:
        """Every switch that can change the numbers of this task on this data set: part of a run's identity."""
        shared = ["normalisation", "missing_bands", "bands", "band_names", "swap_rgb_std"]
        if task in DENSE:
            own = self.dense(task, dataset, model)
            flat = {name: getattr(self, name) for name in [*shared, "own_validation"]}
        else:
            own = self.knn if task == "knn" else self.linear_probe.for_dataset(dataset)
            flat = {name: getattr(self, name) for name in [*shared, "input_size", "fit"]}
            flat["pooled"] = self.pooled_of(model)
        return flat | {f"{task}.{name}": _plain(value) for name, value in vars(own).items()}

    def flat(self) -> dict[str, object]:
        """Every switch by its name on the command line, for printing and comparing."""
        flat: dict[str, object] = {}
        for name, value in vars(self).items():
            if name in GROUPS:
                flat |= {f"{name}.{inner}": _plain(setting) for inner, setting in vars(value).items()}
            elif name not in ("name", "title"):
                flat[name] = _plain(value)
        return flat

    def with_switches(self, assignments: Sequence[str]) -> "Protocol":
        """This protocol with `knn.distance=euclidean`-like assignments made; unknown switches and values are refused."""
        changes: dict[str, dict[str, object]] = {group: {} for group in ("", *GROUPS)}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"--set {assignment!r} is no SWITCH=VALUE")
            name = choose("switch", name.strip().replace("-", "_"), list(self.flat()))
            group, _, inner = name.rpartition(".")
            holder = getattr(self, group) if group else self
            changes[group][inner] = _parse(name, text.strip(), getattr(holder, inner))
            for table in (f"{_TABLES.get(inner, inner)}_by_{kind}" for kind in ("dataset", "model")):
                if hasattr(holder, table):  # what is set by hand holds everywhere
                    changes[group][table] = {}
        # Each group at once, since its switches are checked against each other.
        groups = {group: replace(getattr(self, group), **changes[group]) for group in GROUPS}
        return replace(self, **changes[""], **groups)


GROUPS = tuple(one.name for one in fields(Protocol) if is_dataclass(one.default_factory))
_TABLES = {"learning_rates": "learning_rate"}


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
            case int() | float() if not name.endswith("input_size"):
                return type(current)(text)
        return int(text) if name.endswith("input_size") and text.isdigit() else text
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
# Methods of DEO as its first author ran them; PASTIS and cashew had 1e-2, all others 1e-4.
_DEO_SEGMENTATION = Segmentation(
    learning_rates=(1e-4,),
    weight_decay=0.01,
    epochs=50,
    warmup_epochs=5,
    batch=64,
    micro_batch=16,
    dropout=0.0,
    pyramid_align_corners=True,
    loss="bce",
    backbone_mode="train",
    tile=0,
    stage_store="none",
    augmentation="flips",
    absent="all",
    learning_rate_by_dataset={"m-cashew-plantation": 1e-2, "pastis": 1e-2},
    loss_by_dataset={"sen1floods11": "cross_entropy"},
    average_by_dataset={"sen1floods11": "micro"},
    augmentation_by_dataset={"spacenet1": "crop_flips"},
)
# BTC as released; DEO's text differs in batch and epochs, and says nothing of the rest.
_BTC_CHANGE = ChangeDetection(
    learning_rates=(1e-4,),
    weight_decay=1e-4,
    epochs=100,
    warmup_epochs=0,
    minimum_learning_rate=1e-7,
    batch=32,
    selection="last",
    dropout=0.0,
    backbone="finetuned",
    backbone_mode="train",
    input_size=256,
    tile=256,
    tile_stride=256,
    stage_store="none",
    augmentation="flips_rotation",
    flip_probability=0.3,
)
_CLEAN_HEAD = {"learning_rates": (1e-4, 1e-3), "batch": 16}
_DEMO_HEAD = {
    "head": "upernet-lite",
    "learning_rates": (1e-2,),
    "epochs": 5,
    "warmup_epochs": 1,
    "batch": 4,
}

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "clean",
            "ours, the default: eval-mode backbone, each model's own normalisation and size, learning rates chosen on validation",
            segmentation=Segmentation(**_CLEAN_HEAD),
            change_detection=ChangeDetection(**_CLEAN_HEAD),
        ),
        Protocol(
            "demo",
            "like clean, for the synthetic twin: random weights, native size, one seed, small heads, few epochs",
            weights="random",
            input_size="native",
            seeds=(0,),
            dense_seeds=(0,),
            linear_probe=LinearProbe(batch=16, learning_rates=(1e-3, 1e-2, 1e-1)),
            segmentation=Segmentation(**_DEMO_HEAD),
            change_detection=ChangeDetection(**_DEMO_HEAD),
        ),
        Protocol(
            "deo-paper",
            "as DEO's authors evaluated: data-set z-score, native size, flips, backbone in train mode, raw pooled Swin features",
            normalisation="dataset",
            input_size="native",
            swap_rgb_std=True,
            own_validation="no",
            pooled_by_model={"deo": "raw"},
            seeds=(0,),
            dense_seeds=(0,),
            linear_probe=_DEO_PROBE,
            segmentation=_DEO_SEGMENTATION,
            change_detection=replace(_BTC_CHANGE, epochs=50, batch=64, input_size="native"),
        ),
        Protocol(
            "xstars-paper",
            "as X-STARS reports: RGB at 224, k-NN over six k, linear layer and UPerNet with learning rate 0.01 for 100 epochs",
            input_size=224,
            bands="rgb",
            seeds=(0,),
            dense_seeds=(0,),
            linear_probe=_XSTARS_PROBE,
            segmentation=Segmentation(
                head_by_model={"xstars:resnet50": "unet", "seco": "unet"},
                learning_rates=(1e-2,),
                epochs=100,
                warmup_epochs=0,
                batch=32,
                patience=25,
                tile=0,
            ),
        ),
        Protocol(
            "btc",
            "change detection as BTC released it: fine-tuned, signed difference, soft Dice, tiles of 256, last epoch; else clean",
            own_validation="no",
            dense_seeds=(42, 1337, 564738),
            segmentation=Segmentation(**_CLEAN_HEAD),
            change_detection=_BTC_CHANGE,
        ),
    )
}
