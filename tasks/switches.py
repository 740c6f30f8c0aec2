"""The switches of every task: what can be set, what it means, and which values are refused. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from models.common.errors import UserError, choose

OF_MANY_SIZES = {"spacenet1": 224, "spacenet1-8band": 224}  # DEO reads them so, and they cannot be batched as they are
AUGMENTATIONS = ("none", "flips", "flips_rotation", "crop_flips")


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

    def primary(self, multilabel: bool) -> str:
        """The metric that stands for k-NN in a table: the mean over k under the weighted vote."""
        return "f1_micro_mean_weighted" if multilabel else "accuracy_mean_weighted"


@dataclass(frozen=True)
class Training:
    """Switches of the head-training loop (`tasks.common.fit`), whatever the head.

    All `learning_rates` are trained at once and the validation split picks one. The rate rises linearly from 0 over
    `warmup_epochs`, then follows `schedule`: `cosine` (half a cosine down to `minimum_learning_rate`) or `constant`.
    `momentum` is SGD's. `selection`: `best_val` keeps each head's best epoch on the validation split, `last` its last.
    `micro_batch` cuts a batch into parts whose gradients are summed (0: not at all); batch norm sees the parts.
    `patience` stops after so many epochs without a better score of any head (0: never).
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
    micro_batch: int = 0
    selection: str = "best_val"
    patience: int = 0

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
        for name in ("micro_batch", "patience"):
            _require(getattr(self, name) >= 0, f"{name} must be 0 (off) or more, got {getattr(self, name)}")
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
            choose("augmentation", augmentation, AUGMENTATIONS[:3])
        _require_positive("values of C", self.logistic_c)
        _require_ascending("values of C", self.logistic_c)
        _require_positive(
            "learning rates by data set", tuple(self.learning_rate_by_dataset.values()), may_be_empty=True
        )
        _require(0 <= self.flip_probability <= 1, f"the flip probability must lie in 0..1, got {self.flip_probability}")
        _require(
            0 <= self.rotation_degrees <= 180, f"the rotation must lie in 0..180 degrees, got {self.rotation_degrees}"
        )

    def primary(self, multilabel: bool) -> str:
        """The metric that stands for the linear probe in a table."""
        return "f1_micro" if multilabel else "accuracy"

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


@dataclass(frozen=True)
class Dense(Training):
    """Switches of the heads that predict every pixel, shared by segmentation and change detection.

    `head`: `upernet` (hidden width 512), `upernet-lite` (64, for CPUs), `linear` (per-pixel linear on the stages), `unet`,
    or `auto`: UPerNet for hierarchical backbones and UNet for plain ViTs; `head_by_model` holds exceptions. `dropout`
    before the classifier (`unet_dropout`: of UNet); `auxiliary` adds mmsegmentation's FCN head on the third map, its loss
    weighted 0.4. `pyramid_align_corners` is how a plain ViT's maps are brought to strides 4 to 32. A model's `neck`
    (SatDiFuser) is trained with the head as in linear probing.

    `backbone`: `frozen` or `finetuned`; `backbone_mode`: `eval`, or `train` (stochastic depth active while heads train).
    A fine-tuned backbone has a learning rate and a weight decay of its own, and a plain ViT again others. Of ViTs with 12
    and 24 blocks the stages are `vit_base_blocks` and `vit_large_blocks`; `taps`: `stage` (each model's own: final norm
    applied or not as its authors have it) or `layer_out` (the bare outputs of the blocks).

    `input_size`: `native`, `model` or a side in pixels, `fit` as for classification. Images with a side above `tile` are
    cut (0: never): for training side by side, for inference with `tile_stride`, the logits of overlapping tiles averaged.
    `stage_store`: `fp16` or `bf16` maps on disk, or `none`. `augmentation`: `none`, `flips`, `flips_rotation` (each with
    `flip_probability`, up to `rotation_degrees`), or `crop_flips` (a random square of `crop_scale` of the area, scaled
    back). Scores are always taken at the label's own size.
    """

    head: str = "upernet"
    head_by_model: Mapping[str, str] = field(default_factory=dict)
    dropout: float = 0.1
    unet_dropout: float = 0.1
    auxiliary: bool = False
    pyramid_align_corners: bool = False
    neck: str = "default"
    loss: str = "cross_entropy"
    backbone: str = "frozen"
    backbone_mode: str = "eval"
    backbone_learning_rate: float = 1e-4
    backbone_weight_decay: float = 5e-4
    vit_learning_rate: float = 6e-5
    vit_weight_decay: float = 0.05
    vit_base_blocks: tuple[int, ...] = (3, 5, 8, 11)
    vit_large_blocks: tuple[int, ...] = (7, 11, 15, 23)
    taps: str = "stage"
    input_size: str | int = "native"
    fit: str = "resize"
    tile: int = 512
    tile_stride: int = 384
    stage_store: str = "fp16"
    augmentation: str = "none"
    flip_probability: float = 0.5
    rotation_degrees: float = 90.0
    crop_scale: tuple[float, ...] = (0.5, 1.0)
    learning_rate_by_dataset: Mapping[str, float] = field(default_factory=dict)
    augmentation_by_dataset: Mapping[str, str] = field(default_factory=dict)
    input_size_by_dataset: Mapping[str, int] = field(default_factory=lambda: dict(OF_MANY_SIZES))

    LOSSES = ("cross_entropy", "bce")

    def __post_init__(self) -> None:
        super().__post_init__()
        for head in (self.head, *self.head_by_model.values()):
            choose("head", head, ("auto", "upernet", "upernet-lite", "linear", "unet"))
        choose("loss", self.loss, self.LOSSES)
        choose("treatment of the backbone", self.backbone, ("frozen", "finetuned"))
        choose("backbone mode", self.backbone_mode, ("eval", "train"))
        choose("taps", self.taps, ("stage", "layer_out"))
        choose("fit", self.fit, ("resize", "pad"))
        choose("stage store", self.stage_store, ("fp16", "bf16", "none"))
        for augmentation in (self.augmentation, *self.augmentation_by_dataset.values()):
            choose("augmentation", augmentation, AUGMENTATIONS)
        check_input_size(self.input_size)
        for size in self.input_size_by_dataset.values():
            check_input_size(size)
        for dropout in (self.dropout, self.unet_dropout):
            _require(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout}")
        _require(0 <= self.flip_probability <= 1, f"the flip probability must lie in 0..1, got {self.flip_probability}")
        _require(
            0 <= self.rotation_degrees <= 180, f"the rotation must lie in 0..180 degrees, got {self.rotation_degrees}"
        )
        low, high = self.crop_scale if len(self.crop_scale) == 2 else (0.0, 0.0)
        _require(
            0 < low <= high <= 1,
            f"crop_scale wants two shares of the area, 0 < low <= high <= 1, got {self.crop_scale}",
        )
        _require(self.tile >= 0, f"tile must be 0 (never) or a side in pixels, got {self.tile}")
        _require(
            self.tile == 0 or 0 < self.tile_stride <= self.tile,
            f"tile_stride must lie between 1 and tile = {self.tile}, got {self.tile_stride}",
        )
        for name in ("vit_base_blocks", "vit_large_blocks"):
            blocks, depth = getattr(self, name), 12 if name == "vit_base_blocks" else 24
            _require_ascending(name, blocks)
            _require(
                len(blocks) == 4 and blocks[0] >= 0 and blocks[-1] < depth,
                f"{name} wants four block numbers within 0..{depth - 1}, got {blocks}",
            )
        rates = (self.backbone_learning_rate, self.vit_learning_rate)
        _require_positive("learning rates of the backbone", rates)
        _require(
            min(self.backbone_weight_decay, self.vit_weight_decay) >= 0,
            "weight decay of the backbone must not be negative",
        )

    def on(self, dataset: str, model: str) -> "Dense":
        """The switches that hold for one data set and model, with nothing left to look up."""
        rate = self.learning_rate_by_dataset.get(dataset)
        return replace(
            self,
            learning_rates=self.learning_rates if rate is None else (rate,),
            augmentation=self.augmentation_by_dataset.get(dataset, self.augmentation),
            input_size=self.input_size_by_dataset.get(dataset, self.input_size),
            head=self.head_by_model.get(model, self.head),
            learning_rate_by_dataset={},
            augmentation_by_dataset={},
            input_size_by_dataset={},
            head_by_model={},
        )

    @property
    def uses_stored_features(self) -> bool:
        """False where the maps of an image differ from epoch to epoch, so that the backbone must run in each."""
        return self.augmentation == "none" and self.backbone_mode == "eval" and self.backbone == "frozen"


@dataclass(frozen=True)
class Segmentation(Dense):
    """Switches of semantic segmentation: those of `Dense`, and which number stands for it.

    `loss`: `cross_entropy` or `bce` (on one-hot masks, as DEO's evaluation). `average`: `macro` or `micro` IoU; `absent`:
    what a macro mean does with classes: `present` (those in the test labels), `all` (those in labels or predictions), `zero`
    (all of the data set, an absent one counts 0). `no_data`: `count` it as a class like any other, or leave its pixels
    out (`ignore`) of training and score.
    """

    average: str = "macro"
    absent: str = "present"
    no_data: str = "count"
    loss_by_dataset: Mapping[str, str] = field(default_factory=dict)
    average_by_dataset: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for loss in self.loss_by_dataset.values():
            choose("loss", loss, self.LOSSES)
        for average in (self.average, *self.average_by_dataset.values()):
            choose("average", average, ("macro", "micro"))
        choose("rule for absent classes", self.absent, ("present", "all", "zero"))
        choose("rule for no data", self.no_data, ("count", "ignore"))

    def on(self, dataset: str, model: str) -> "Segmentation":
        chosen = super().on(dataset, model)
        assert isinstance(chosen, Segmentation)
        return replace(
            chosen,
            loss=self.loss_by_dataset.get(dataset, self.loss),
            average=self.average_by_dataset.get(dataset, self.average),
            loss_by_dataset={},
            average_by_dataset={},
        )

    def primary(self, has_no_data: bool) -> str:
        """The metric that stands for segmentation in a table."""
        name = "iou_micro_native" if self.average == "micro" else f"miou_macro_{self.absent}_native"
        return f"{name}_without_no_data" if has_no_data and self.no_data == "ignore" else name


@dataclass(frozen=True)
class ChangeDetection(Dense):
    """Switches of change detection: those of `Dense`, and how two dates become one.

    `difference`: `signed` (before - after per stage) or `absolute`. `loss`: soft `dice` over the whole batch or `bce`, both
    with one logit, or `cross_entropy` with two.
    """

    head: str = "auto"
    loss: str = "dice"
    difference: str = "signed"
    vit_base_blocks: tuple[int, ...] = (3, 5, 7, 11)

    LOSSES = ("dice", "bce", "cross_entropy")

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("difference", self.difference, ("signed", "absolute"))

    @property
    def primary(self) -> str:
        """The metric that stands for change detection in a table."""
        return "f1_change"


def check_input_size(size: str | int) -> None:
    """Refuse what is neither `model`, `native` nor a side in pixels."""
    if isinstance(size, str):
        choose("input size", size, ("model", "native"))
    elif size < 1:
        raise UserError(f"input_size {size} is below 1 pixel")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise UserError(sentence)


def _require_ascending(what: str, values: Sequence[float]) -> None:
    _require(len(values) > 0, f"the {what} are empty; name at least one")
    _require(all(a < b for a, b in pairwise(values)), f"the {what} must ascend without repeats, got {tuple(values)}")


def _require_positive(what: str, values: Sequence[float], may_be_empty: bool = False) -> None:
    _require(may_be_empty or len(values) > 0, f"the {what} are empty; name at least one")
    _require(all(value > 0 for value in values), f"the {what} must be above 0, got {tuple(values)}")
