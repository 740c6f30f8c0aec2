"""Every switch of DEO's pretraining (Wolf et al., CVPR 2026, arXiv:2602.19863), and the values of paper and release.

Importable without torch. "Release" is github.com/wolfilip/DEO-FM at 55c7ae1, with the command of its README.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, NamedTuple

from models.common.errors import UserError, choose


class Swin(NamedTuple):
    """Width of the first stage (doubled by every next one), blocks and attention heads per stage, stochastic depth."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    drop_path: float


# torchvision's swin_t and swin_b, which the release trains.
SWINS = {
    "swin_t": Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2),
    "swin_b": Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 0.5),
}
VIT_DROP_PATH = 0.1  # `--drop_path_rate` of the release, whose teacher ViT has none

# What `choose` allows, by field.
CHOICES = {
    "student": (*SWINS, "swin", "vit_b"),
    "distill": ("none", "cls", "cls+patch"),
    "optical_path": ("shared", "separate"),
    "ms_branch_rgb": ("plain", "augmented"),
    "bands": ("rgb_first", "as_stored"),
    "teacher_input": ("student", "own"),
    "vit_patches": ("straight", "crossed"),
    "expansion": ("mean", "student"),
    "balancing": ("ratio", "root"),
    "covariance": ("grouped", "all_reduced"),
    "clip_mode": ("per-tensor", "global"),
    "precision": ("fp32", "fp16", "bf16"),
}


@dataclass(frozen=True)
class DeoRecipe:
    """One pretraining, completely. The defaults are those of `recipe(preset="full", form="paper")`.

    Network. `student`: `swin_t`, `swin_b`, `vit_b`, or `swin` of the free shape `width`, `depths`, `heads`. `window` is
    a Swin's, in tokens (training script: torchvision's 7; paper and released Swin-B: 12), `patch` a ViT's, in pixels
    (training script: 16; released ViT: 8). `drop_path`: stochastic depth of the student; the MS teacher has it too with
    `teacher_drop_path` (the released Swin teacher does, being left in train mode). Heads are MLPs of two hidden layers
    of `head_hidden`; that of the MS branch ends in `head_width`, those of the optical branch in the width of what they
    are compared with.

    Data. `bands`: red, green, blue first (`rgb_first`, what the released weights expect) or blue, green, red, which the
    released loader takes from files in Sentinel-2's order (`as_stored`). `hr_rgb`: where a sample has an RGB image of
    high resolution, this takes the place of the three optical bands.

    Views. Of every image, `global_views` crops of `global_size` pixels and `local_views` of `local_size`, the crop's
    share of the area from `*_scale`. `rgb_aug`: heavy augmentation of red, green, blue; else flips alone. The
    probabilities `jitter`, `gray`, `blur` (first global, other global, local views) and `solarise` (other global views)
    are the release's. `ms_branch_rgb`: does the MS branch see the augmented RGB (release) or the plain one (Figure 2).

    Distillation. `distill`, `optical_path` (does the student see RGB alone, through a stem of its own), `teacher` (an
    adapter's name, or `none`), `teacher_input` (normalised as the student's RGB, as in the release, or as the teacher's
    authors do), `vit_patches` (`crossed`: the release compares a ViT's late patches with the teacher's middle ones).

    Losses: see `models.pretraining.losses`. The total is -`compression` C_MS - `gamma` R - `cls_weight` C_cls -
    `late_weight` C_late - `mid_weight` C_mid. `groups`: into how many parts the batch of a step is cut, each with a
    covariance of its own, as one GPU of the authors had; `covariance=all_reduced` sums it over all processes instead.

    Optimisation: read by the trainer. `batch` counts the images of a step over all processes; `learning_rate` is for a
    batch of 256 and grows with it; warm-up from 0, then cosine to `minimum_learning_rate`. Weight decay and the EMA of
    the teacher follow a cosine to their second value. AdamW (the paper says Adam; the scheduled weight decay is that of
    the release's AdamW).
    """

    name: str = "full"
    student: str = "swin_t"
    width: int = 32
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    window: int = 12
    patch: int = 8
    drop_path: float = 0.2
    teacher_drop_path: bool = False
    head_hidden: int = 2048
    head_width: int = 256

    bands: str = "rgb_first"
    hr_rgb: bool = True

    global_views: int = 2
    local_views: int = 10
    global_size: int = 224
    local_size: int = 96
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rgb_aug: bool = True
    jitter: float = 0.8
    jitter_strengths: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    gray: float = 0.2
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int = 23
    solarise: float = 0.2
    ms_branch_rgb: str = "plain"

    distill: str = "cls+patch"
    optical_path: str = "separate"
    teacher: str = "dinov3"
    teacher_input: str = "student"
    vit_patches: str = "straight"

    compression: float = 1.0
    gamma: float = 1.0
    eps: float = 0.5
    expansion: str = "mean"
    balancing: str = "ratio"
    covariance: str = "grouped"
    groups: int = 16
    cls_weight: float = 1.0
    late_weight: float = 0.5
    mid_weight: float = 0.5

    batch: int = 128
    epochs: int = 50
    warmup_epochs: float = 10
    learning_rate: float = 5e-4
    minimum_learning_rate: float = 1e-6
    weight_decay: tuple[float, float] = (0.04, 0.4)
    ema: tuple[float, float] = (0.996, 1.0)
    clip: float = 3.0
    clip_mode: str = "per-tensor"
    precision: str = "fp16"

    def __post_init__(self) -> None:
        """Raise `UserError` for the first value that cannot be."""
        for field, known in CHOICES.items():
            choose(f"value of {field}", getattr(self, field), known)
        check_numbers(self)

    @property
    def swin(self) -> Swin:
        """The shape of the Swin student, with the stochastic depth of this recipe."""
        shape = SWINS.get(self.student, Swin(self.width, self.depths, self.heads, 0.0))
        return shape._replace(drop_path=self.drop_path)

    @property
    def distils(self) -> bool:
        """True if there is an optical teacher to learn from."""
        return self.distill != "none"

    @property
    def separate_rgb(self) -> bool:
        """True if the optical branch gets RGB views that differ from the RGB in the MS branch."""
        return self.distils and self.rgb_aug and self.ms_branch_rgb == "plain"


# Where paper and release differ, by `form`. The paper's eps is lost; 0.5 is the default of the code,
# 0.05 that of the released command. The paper trains 16 processes of 8 images, the command 4 of 64.
FORMS: dict[str, dict[str, Any]] = {
    "paper": {
        "window": 12,
        "patch": 8,
        "teacher_drop_path": False,
        "ms_branch_rgb": "plain",
        "vit_patches": "straight",
        "eps": 0.5,
        "cls_weight": 1.0,
        "late_weight": 0.5,
        "mid_weight": 0.5,
        "batch": 128,
        "groups": 16,
    },
    "released": {
        "window": 7,
        "patch": 16,
        "teacher_drop_path": True,
        "ms_branch_rgb": "augmented",
        "vit_patches": "crossed",
        "eps": 0.05,
        "cls_weight": 0.5,
        "late_weight": 0.25,
        "mid_weight": 0.25,
        "batch": 256,
        "groups": 4,
    },
}

# The main model; the setting of Table 6 (Swin-T, 50 epochs); and one that two CPU cores can train in minutes, whose
# teacher follows faster and whose learning rate is higher because its steps are hundreds, not hundreds of thousands.
SCALES: dict[str, dict[str, Any]] = {
    "main": {"student": "swin_b", "epochs": 100},
    "ablation": {"student": "swin_t", "epochs": 50},
    "small": {
        "student": "swin",
        "width": 24,
        "depths": (1, 1, 2, 1),
        "window": 4,
        "head_hidden": 256,
        "head_width": 64,
        "global_size": 32,
        "local_size": 16,
        "local_views": 4,
        "batch": 64,
        "groups": 1,
        "epochs": 50,
        "warmup_epochs": 5,
        "learning_rate": 4e-3,
        "ema": (0.95, 1.0),
        "precision": "fp32",
    },
}

# Table 6, rows 0 to 5: every row adds one thing to the row before.
PRESETS: dict[str, dict[str, Any]] = {}
_ROW: dict[str, Any] = {"distill": "none", "optical_path": "shared", "rgb_aug": False, "hr_rgb": False}
for _name, _adds in (
    ("base-ms", {}),
    ("cls-shared", {"distill": "cls"}),
    ("separate", {"optical_path": "separate"}),
    ("patch", {"distill": "cls+patch"}),
    ("rgb-aug", {"rgb_aug": True}),
    ("full", {"hr_rgb": True}),
):
    _ROW = {**_ROW, **_adds}
    PRESETS[_name] = _ROW


def recipe(preset: str = "full", form: str = "paper", scale: str = "ablation", **changes: Any) -> DeoRecipe:
    """The recipe of a row of the ablation ladder, with the values of `paper` or `released`, at a scale, then `changes`.

    What a change implies follows it: `student` brings its stochastic depth, `teacher=none` ends distillation. Raises
    `UserError` for a name that is unknown and a value that cannot be.
    """
    values: dict[str, Any] = {
        "name": preset,
        **FORMS[choose("recipe", form, FORMS)],
        **SCALES[choose("scale", scale, SCALES)],
        **PRESETS[choose("preset of deo", preset, PRESETS)],
    }
    known = {field.name for field in fields(DeoRecipe)}
    for key in changes:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            raise UserError(f"deo has no switch {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    if changes.get("teacher") == "none" and "distill" not in changes:
        values["distill"] = "none"
    values |= changes
    if values["distill"] == "none":
        values.setdefault("teacher", "none")
    if values["distill"] == "cls" and form == "released":
        values["cls_weight"] = changes.get("cls_weight", 1.0)  # the release halves it only beside the patches
    student = values["student"]
    if student == "vit_b":
        implied = {"drop_path": VIT_DROP_PATH, "teacher_drop_path": False}
    else:
        implied = {"drop_path": SWINS[student].drop_path if student in SWINS else 0.0}
    return DeoRecipe(**{**values, **implied, **{key: changes[key] for key in implied if key in changes}})


def check_numbers(made: DeoRecipe) -> None:
    """Refuse numbers out of range and switches that contradict each other, each with a sentence."""
    for field in ("drop_path", "flip", "jitter", "gray", "solarise"):
        _within(field, getattr(made, field), 0, 1)
    for number, value in enumerate(made.blur):
        _within(f"blur[{number}]", value, 0, 1)
    for field in ("global_scale", "local_scale"):
        low, high = getattr(made, field)
        _require(0 < low <= high <= 1, f"{field} must be two rising shares of the area in 0..1, got {low:g}, {high:g}")
    least = {"global_views": 1, "local_views": 0, "window": 1, "patch": 1, "head_hidden": 1, "head_width": 1}
    for field, value in {**least, "groups": 1, "batch": 1, "epochs": 1, "width": 1}.items():
        _require(getattr(made, field) >= value, f"{field} must be at least {value}, got {getattr(made, field)}")
    _require(
        made.global_views + made.local_views > 1,
        "there must be two views at least: compression compares different ones",
    )
    for field in ("eps", "learning_rate"):
        _require(getattr(made, field) > 0, f"{field} must be above 0, got {getattr(made, field):g}")
    step = made.patch if made.student == "vit_b" else 4
    for field in ("global_size", "local_size"):
        size = getattr(made, field)
        _require(size % step == 0 and size > 0, f"{field} must be a multiple of {step} pixels, got {size}")
    if made.rgb_aug:
        _require(made.blur_kernel % 2 == 1, f"blur_kernel must be odd, got {made.blur_kernel}")
        smallest = min(made.global_size, made.local_size if made.local_views else made.global_size)
        _require(
            smallest > made.blur_kernel // 2,
            f"a view of {smallest} pixels is too small for a blur_kernel of {made.blur_kernel}",
        )
    _require(
        made.distils == (made.teacher != "none"),
        f"distill={made.distill} needs an optical teacher; teacher=none goes with distill=none (preset base-ms) alone"
        if made.distils
        else f"distill=none has no use for the teacher {made.teacher}: leave it out, or choose cls or cls+patch",
    )
    _require(
        made.covariance == "grouped" or made.groups == 1,
        f"covariance=all_reduced is one over all images: groups must be 1, got {made.groups}",
    )
    swin = made.swin
    _require(
        len(swin.depths) == len(swin.heads) == 4 and min((*swin.depths, *swin.heads)) > 0,
        f"depths and heads must be four numbers above 0 each, got {swin.depths} and {swin.heads}",
    )
    for stage, heads in enumerate(swin.heads):
        width = swin.width * 2**stage
        _require(width % heads == 0, f"stage {stage + 1} is {width} wide, which {heads} heads do not divide")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise UserError(sentence)


def _within(field: str, value: float, low: float, high: float) -> None:
    _require(low <= value <= high, f"{field} must be in {low:g}..{high:g}, got {value:g}")


def switches(made: DeoRecipe) -> Mapping[str, Any]:
    """Every switch by name, as plain values: what a log, a plan or a checkpoint keeps."""
    return {field.name: getattr(made, field.name) for field in fields(made)}
