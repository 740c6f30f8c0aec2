"""Every switch of X-STARS pretraining, the paper and the release side by side, and the rows of the paper's tables.

Standard library only, so that a plan answers at once. Source: Marsocci and Audebert, 2024, arXiv:2405.09922 ("paper"),
and github.com/VMarsocci/X-STARS at c44287d ("code"), which inherits all that is DINO's (facebookresearch/dino).
"""

from dataclasses import dataclass, fields
from math import sqrt
from typing import Any, NamedTuple

from models.common.errors import UserError, choose


class Sensor(NamedTuple):
    """Statistics of one sensor's RGB in 0..1, red first; `side` is what its scenes measure in pixels."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    side: int


# MSC-France; code, `dataset.py`. The scenes of the three sensors show the same ground.
SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor("landsat", (0.27059479, 0.27839213, 0.18060363), (0.1741122, 0.14797395, 0.125955), 100),
        Sensor("sentinel", (0.14316194, 0.14518686, 0.09228685), (0.13242126, 0.10325284, 0.08168219), 300),
        Sensor("spot", (0.31007201, 0.34869021, 0.23991865), (0.16708196, 0.14294321, 0.16296565), 2000),
    )
}


class Network(NamedTuple):
    """A ViT; `variant` is the one of the adapter `xstars` that loads it."""

    variant: str
    width: int
    depth: int
    heads: int
    patch: int


NETWORKS = {
    "vit_tiny": Network("tiny", 192, 12, 3, 16),
    "vit_small": Network("small", 384, 12, 6, 16),
    "vit_base": Network("base", 768, 12, 12, 16),
    "vit_large": Network("large", 1024, 24, 16, 16),
}
HEAD_WIDTH = 64  # channels per attention head of every ViT here: heads cannot be read off a checkpoint, the width can


@dataclass(frozen=True)
class XstarsRecipe:
    """All that decides what is trained and how. Combinations that make no sense raise a `UserError`.

    Network: `architecture` is `vit_tiny`, `vit_small`, `vit_base`, `vit_large` (patch 16), `resnet50`, or `vit` for one of
    `width`, `depth`, `heads` and `patch`. `grid` is the side of the position table in patches (0: 14 as in the code
    whatever the input, and the input's own for `vit`).

    Data: `sensors` by name, with `statistics` for those that are not MSC-France's. `crop_statistics`: crops are z-scored
    with the `joint` statistics of all sensors (code) or with the `sensor`'s own. `scene_normalisation`: full scenes for
    MSAD are z-scored `once`, by sensor, or `twice`, jointly and then by sensor (code).

    MSAD: `msad` is `paper` (equations 6 to 8), `released` or `off`; `msad_gradient` says whether it trains anything (in
    the code it does not); `msad_temperature` is tau (paper: not given; 0.1 is DINO's); `pair_reduction` over the pairs of
    three sensors is `mean` (paper) or `sum` (code); `sum_inside_log` takes equation 6 as printed; `groups` cuts the batch
    into as many parts that are aligned by themselves, as on so many devices.

    Continual: the domain teacher is the starting network, frozen; `domain_teacher_sees` the `source` (the paper's text and
    figure 2, and the code) or the `target` (the formula at the end of III-C), the student the other;
    `domain_teacher_drop_path` leaves it in training mode with drop path, as the code does by omission.

    Optimisation: `batch` is that of all devices together; the trainer multiplies `learning_rate` by batch / 256. Clipping is
    by the norm of each tensor (`per-tensor`, code) or of all (`global`).
    """

    recipe: str = "paper"
    architecture: str = "vit_large"
    width: int = 128
    depth: int = 4
    heads: int = 2
    patch: int = 8
    grid: int = 0
    drop_path: float = 0.1

    sensors: tuple[str, ...] = ("sentinel", "landsat")
    statistics: tuple[Sensor, ...] = ()
    crop_statistics: str = "joint"
    scene_normalisation: str = "once"

    input_size: int = 224
    local_size: int = 96
    local_crops: int = 8
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grey: float = 0.2
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)  # probability on the first global, second global and local crops
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.2  # of the second global crop
    solarise_threshold: float = 128 / 255

    prototypes: int = 65536
    head_width: int = 2048
    bottleneck: int = 256
    norm_last_layer: bool = True
    freeze_last_layer: int = 1  # epochs
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_start: float = 0.04
    teacher_temperature_warmup: int = 0  # epochs
    centre_momentum: float = 0.9

    msad: str = "paper"
    msad_gradient: bool = True
    msad_weight: float = 0.1
    msad_temperature: float = 0.1
    patchwise: bool = True
    label_smoothing: float = 0.3
    sum_inside_log: bool = False
    pair_reduction: str = "mean"
    projection_width: int = 1024
    projection_dropout: float = 0.2  # of the released projectors
    groups: int = 1

    mode: str = "scratch"
    source: str = ""
    target: str = ""
    domain_teacher_sees: str = "source"
    domain_teacher_drop_path: bool = False

    learning_rate: float = 5e-4
    minimum_learning_rate: float = 1e-6
    warmup_epochs: int = 10
    epochs: int = 800
    weight_decay: tuple[float, float] = (0.04, 0.4)
    ema: float = 0.996
    clip: float = 3.0
    clip_mode: str = "per-tensor"
    batch: int = 256
    precision: str = "fp16"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            choose(name, getattr(self, name), known)
        self._check_numbers()
        self._check_network()
        self._check_sensors()

    @property
    def network(self) -> Network | None:
        """The ViT to be trained; None for the ResNet-50."""
        if self.architecture == "vit":
            return Network("vit", self.width, self.depth, self.heads, self.patch)
        return NETWORKS.get(self.architecture)

    @property
    def adapter(self) -> str:
        """What `run --model` is to be told together with the checkpoint: `xstars:tiny`, `xstars:resnet50`, ..."""
        return f"xstars:{self.network.variant if self.network else self.architecture}"

    @property
    def position_grid(self) -> int:
        """Side of the ViT's position table in patches."""
        return self.grid or (self.input_size // self.patch if self.architecture == "vit" else 14)

    @property
    def crop_sensors(self) -> tuple[str, ...]:
        """The sensors that DINO sees: all from scratch, the target alone in continual pretraining."""
        return (self.target,) if self.mode == "continual" else self.sensors

    @property
    def scene_sensors(self) -> tuple[str, ...]:
        """The sensors whose full scenes MSAD aligns: none where it is off."""
        return () if self.msad == "off" else self.sensors

    def sensor(self, name: str) -> Sensor:
        """The statistics of one sensor: those given, else MSC-France's."""
        known = SENSORS | {sensor.name: sensor for sensor in self.statistics}
        return known[choose("sensor with known statistics", name, known)]

    def joint(self) -> Sensor:
        """Statistics of all pixels of all sensors together, each sensor weighing as many pixels as its scenes have.

        This is what the code's `--mean` and `--std` are: its README's for Sentinel-2 with Landsat-8 and its default for
        the three sensors come out to all digits.
        """
        sensors = [self.sensor(name) for name in self.sensors]
        weights = [sensor.side**2 / sum(other.side**2 for other in sensors) for sensor in sensors]
        mean, std = [], []
        for band in range(3):
            first = sum(w * sensor.mean[band] for w, sensor in zip(weights, sensors, strict=True))
            second = sum(
                w * (sensor.mean[band] ** 2 + sensor.std[band] ** 2) for w, sensor in zip(weights, sensors, strict=True)
            )
            mean.append(first)
            std.append(sqrt(second - first**2))
        return Sensor("joint", (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), max(s.side for s in sensors))

    def _check_numbers(self) -> None:
        for name in POSITIVE:
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in SHARES:
            values = getattr(self, name) if isinstance(getattr(self, name), tuple) else (getattr(self, name),)
            if not all(0 <= value <= 1 for value in values):
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in 0..1")
        for name in ("global_scale", "local_scale", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"{name} is {low:g}..{high:g}; it must be a range above 0, the smaller number first")
        if self.label_smoothing == 1 or self.drop_path == 1:
            raise UserError("label_smoothing and drop_path must be below 1")
        if self.batch % self.groups:
            raise UserError(f"a batch of {self.batch} does not divide into {self.groups} groups")

    def _check_network(self) -> None:
        vit = self.network
        if not vit:
            return
        if vit.width != HEAD_WIDTH * vit.heads:
            raise UserError(
                f"a ViT of width {vit.width} has {vit.width / HEAD_WIDTH:g} heads of {HEAD_WIDTH} channels, not {vit.heads}: "
                f"checkpoints do not tell the heads, so that only width = {HEAD_WIDTH} x heads can be loaded again"
            )
        if vit.depth < 4:
            raise UserError(f"a ViT of {vit.depth} blocks cannot give the four stages of the feature contract; 4 can")
        smallest = min(self.input_size, self.local_size if self.local_crops else self.input_size)
        if smallest < vit.patch:
            raise UserError(f"views of {smallest} pixels are smaller than a patch of {vit.patch}")

    def _check_sensors(self) -> None:
        if self.mode == "continual":
            if not self.source or not self.target:
                raise UserError("continual pretraining goes from a source to a target sensor: name both")
            if set(self.sensors) != {self.source, self.target}:
                raise UserError(
                    f"continual pretraining from {self.source} to {self.target} has these sensors, not {', '.join(self.sensors)}"
                )
        elif self.source or self.target:
            raise UserError("source and target belong to continual pretraining; set mode=continual or leave them out")
        if not self.sensors or len(set(self.sensors)) < len(self.sensors):
            raise UserError(f"sensors are {', '.join(self.sensors) or 'none'}; name each once")
        if self.msad != "off" and self.mode == "scratch" and len(self.sensors) < 2:
            raise UserError(f"MSAD aligns two or three sensors, not {', '.join(self.sensors)} alone: set msad=off")
        for name in self.sensors:
            if "." in name:
                raise UserError(f"sensor {name!r} has a dot in its name: choose one without")
            self.sensor(name)


CHOICES = {
    "recipe": ("paper", "released"),
    "architecture": (*NETWORKS, "resnet50", "vit"),
    "crop_statistics": ("joint", "sensor"),
    "scene_normalisation": ("once", "twice"),
    "msad": ("paper", "released", "off"),
    "pair_reduction": ("mean", "sum"),
    "mode": ("scratch", "continual"),
    "domain_teacher_sees": ("source", "target"),
    "clip_mode": ("per-tensor", "global"),
    "precision": ("fp32", "fp16", "bf16"),
}
POSITIVE = (
    "patch",
    "depth",
    "input_size",
    "local_size",
    "prototypes",
    "head_width",
    "bottleneck",
    "student_temperature",
)
POSITIVE += ("teacher_temperature", "teacher_temperature_start", "msad_temperature", "projection_width", "groups")
POSITIVE += ("learning_rate", "epochs", "batch")
NOT_NEGATIVE = ("grid", "local_crops", "freeze_last_layer", "teacher_temperature_warmup", "msad_weight", "clip")
NOT_NEGATIVE += ("minimum_learning_rate", "warmup_epochs")
SHARES = ("drop_path", "global_scale", "local_scale", "flip", "jitter_probability", "grey", "blur", "solarise")
SHARES += ("solarise_threshold", "centre_momentum", "label_smoothing", "projection_dropout", "ema")

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"recipe": "paper"},
    "released": {
        "recipe": "released",
        "msad": "released",
        "msad_gradient": False,
        "msad_temperature": 1.0,
        "pair_reduction": "sum",
        "scene_normalisation": "twice",
        "domain_teacher_drop_path": True,
    },
}

SHORT = {"ls": "landsat", "s2": "sentinel", "s6": "spot"}  # the paper's names
# The ablations' network, on 2 x 64 images; the paper says so of Table II. Which network Table III had is not said.
TINY: dict[str, Any] = {"architecture": "vit_tiny", "batch": 128, "epochs": 400}


def _tables() -> dict[str, dict[str, Any]]:
    """The rows of the paper's tables by name; `adapt none` of Table V is its first stage alone."""
    rows: dict[str, dict[str, Any]] = {
        "table2-no-msad": TINY | {"msad": "off"},
        "table2-msad": TINY | {"patchwise": False, "label_smoothing": 0.0},
        "table2-msad-pw": TINY | {"label_smoothing": 0.0},
        "table2-msad-ls": TINY | {"patchwise": False},
        "table2-msad-pw-ls": TINY,
    }
    rows |= {f"table3-{size}": TINY | {"input_size": size} for size in (100, 224, 300)}
    for name in ("ls-s2", "ls-s6", "s2-s6", "s2-ls-s6"):
        row = TINY | {"sensors": tuple(SHORT[part] for part in name.split("-"))}
        rows[f"table4-{name}"] = row
        rows[f"table4-{name}-no-msad"] = row | {"msad": "off"}
        rows[f"table4-{name}-no-msad-800"] = row | {"msad": "off", "epochs": 800}
    for source, first in SHORT.items():
        rows[f"table5-{source}"] = TINY | {"sensors": (first,), "msad": "off"}
        for target, second in SHORT.items():
            rows[f"table5-{source}-{target}"] = TINY | continual(first, second)
    return rows


def continual(source: str, target: str) -> dict[str, Any]:
    """The switches of continual pretraining from one sensor to another, or to itself (the control of Table V)."""
    sensors = (source, target) if source != target else (source,)
    return {"mode": "continual", "source": source, "target": target, "sensors": sensors, "epochs": 400}


PRESETS: dict[str, dict[str, Any]] = {
    "s2-ls": {},  # Table I: 8 x 32 images
    "s2-ls-resnet50": {"architecture": "resnet50"},
    "s2-ls-base": {"architecture": "vit_base"},  # Table VI
    "s2-ls-tiny": {"architecture": "vit_tiny"},
    "s2-to-s6": continual("sentinel", "spot"),  # Table I
    "ls-to-s6": continual("landsat", "spot"),
    "s6-to-s2": continual("spot", "sentinel"),
    **_tables(),
    # A ViT that two cores train in minutes on images of 64 pixels: a peak rate of 5e-4 and a teacher that follows sooner.
    "cpu": {
        "architecture": "vit",
        "input_size": 64,
        "local_size": 32,
        "local_crops": 4,
        "prototypes": 4096,
        "head_width": 512,
        "projection_width": 256,
        "drop_path": 0.0,
        "epochs": 100,
        "batch": 32,
        "learning_rate": 4e-3,
        "ema": 0.99,
        "precision": "fp32",
    },
}


def recipe(preset: str = "s2-ls", form: str = "paper", **changes: Any) -> XstarsRecipe:
    """The switches of a preset as the `paper` or the `released` code has them, then `changes` by name.

    A new source or target brings its sensors along. Raises `UserError` for unknown names and for what makes no sense
    together.
    """
    for name in changes:
        choose("switch of xstars", name, [field.name for field in fields(XstarsRecipe)])
    settings = RECIPES[choose("recipe", form, RECIPES)] | PRESETS[choose("preset of xstars", preset, PRESETS)]
    settings |= changes
    ends = tuple(dict.fromkeys(settings.get(end, "") for end in ("source", "target")))
    if settings.get("mode") == "continual" and "sensors" not in changes and all(ends):
        settings["sensors"] = ends
    return XstarsRecipe(**settings)
