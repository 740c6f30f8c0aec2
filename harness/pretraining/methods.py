"""The methods by name: recipe from words, images from paths, the method itself, and how it is probed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, choose, one_line

if TYPE_CHECKING:
    from models.common.card import Card
    from models.pretraining.builder import Pretraining
    from tasks.data.unlabelled.images import Images

METHODS = ("deo", "xstars")
FORMS = ("paper", "released")
# What a machine without a GPU trains unless told otherwise; said on the first line.
ON_CPU = {"deo": {"scale": "small"}, "xstars": {"preset": "cpu"}}


@dataclass(frozen=True)
class Asked:
    """The words of the command line that decide what is learnt."""

    method: str
    data: tuple[str, ...]
    preset: str | None = None
    form: str = "paper"
    scale: str | None = None
    switches: tuple[str, ...] = ()
    teacher: str | None = None
    teacher_weights: str | None = None
    init: str | None = None
    init_weights: str = "official"
    epochs: int | None = None
    batch: int | None = None
    accumulate: int = 1
    precision: str | None = None
    pairing: str = "cycle"
    rgb_share: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """A method that is ready to train. `build` makes it, which may take gigabytes; `notes` are sentences for the user."""

    recipe: Any
    images: "Images"
    build: Callable[[], "Pretraining"]
    facts: Mapping[str, Any]
    notes: tuple[str, ...]
    repeats: int
    model: str
    multispectral: bool
    probe_size: int
    probe_sensor: str


def prepare(asked: Asked, gpu: bool, cache: Path) -> Prepared:
    """Recipe, images and builder of what was asked. Raises `UserError`."""
    return (_deo if choose("method", asked.method, METHODS) == "deo" else _xstars)(asked, gpu, cache)


def _deo(asked: Asked, gpu: bool, cache: Path) -> Prepared:
    from models.pretraining.deo_recipe import DeoRecipe, recipe

    notes = []
    scale = asked.scale or ("ablation" if gpu else ON_CPU["deo"]["scale"])
    if not asked.scale and not gpu:
        notes.append(
            f"no GPU: a small Swin and small views (--scale {scale}); --scale ablation or main insists on theirs"
        )
    if asked.init:
        raise UserError("deo starts from random weights; --init belongs to xstars")
    changes = parsed(asked, DeoRecipe, gpu)
    if asked.teacher is not None:
        changes["teacher"] = asked.teacher
    made = recipe(asked.preset or ("base-ms" if asked.teacher == "none" else "full"), asked.form, scale, **changes)
    if "groups" not in changes and asked.batch and made.covariance == "grouped":
        # A group stands for one of the authors' GPUs: its size stays where the batch is another one.
        usual = recipe(made.name, asked.form, scale, **{name: changes[name] for name in changes if name != "batch"})
        rows = usual.batch // usual.groups
        made = replace(made, groups=max(1, made.batch // rows))
        notes.append(f"{made.groups} covariance group(s): the recipe's have {rows} images")
    from tasks.data.unlabelled.recognise import open_images

    images = open_images(asked.data, asked.pairing, asked.rgb_share)
    if made.hr_rgb and "rgb" not in images.sensors:
        notes.append("hr_rgb has nothing to replace: the data hold no RGB images beside the multispectral ones")
    located = teacher_weights(made.teacher, asked.teacher_weights, cache)

    def build() -> "Pretraining":
        from models.pretraining.deo import DeoPretraining
        from models.pretraining.teachers import optical_teacher

        teacher = optical_teacher(made.teacher, asked.teacher_weights or "official", cache)
        return DeoPretraining(made, teacher)

    student = "deo:vit" if made.student == "vit_b" else "deo"
    return Prepared(
        made,
        images,
        build,
        {"optical_teacher": located},
        tuple(notes) + enlarged(images, made.global_size),
        1,
        student,
        True,
        made.global_size if made.student == "vit_b" else 0,
        "",
    )


def teacher_weights(name: str, weights: str | None, cache: Path) -> str:
    """The digest of the optical teacher's weights, `none` for no teacher; absent ones are a `UserError` before anything."""
    if name == "none":
        if weights:
            raise UserError("--teacher-weights has no use without a teacher: give --teacher NAME, or leave it out")
        return "none"
    import models
    from models.pretraining.teachers import TEACHERS

    card = models.card(choose("optical teacher", name, ("none", *TEACHERS)))
    if weights and weights not in ("official", "random") and not Path(weights).exists():
        raise UserError(f"no optical teacher {name}: there is no file {weights}")
    try:
        return weights_digest(card, weights or "official", cache)
    except UserError as error:
        raise UserError(
            f"no optical teacher {name}: {one_line(error)}; give --teacher-weights PATH of {card.checkpoint.file} "
            f"({card.checkpoint.url or card.checkpoint.where}), or train without one (--teacher none)"
        ) from error


def weights_digest(card: "Card", weights: str, cache: Path) -> str:
    """The digest of an adapter's weights; official ones are fetched, so that it is the same when training goes on."""
    from models.common.weights import fetch, locate

    located = locate(card, weights, cache)
    if located.kind == "official" and located.path is None:
        fetch(card, cache)
        located = locate(card, weights, cache)
    return located.digest


def _xstars(asked: Asked, gpu: bool, cache: Path) -> Prepared:
    from models.pretraining.xstars_recipe import SENSORS, Sensor, XstarsRecipe, recipe
    from tasks.data.unlabelled.recognise import open_sensors
    from tasks.data.unlabelled.sensors import statistics

    if asked.teacher or asked.teacher_weights:
        raise UserError("xstars has no optical teacher; --teacher belongs to deo")
    if asked.scale:
        raise UserError("xstars has presets of every size (--preset); --scale belongs to deo")
    notes = []
    preset = asked.preset or ("s2-ls" if gpu else ON_CPU["xstars"]["preset"])
    if not asked.preset and not gpu:
        notes.append(
            f"no GPU: a small ViT and small views (--preset {preset}); --preset s2-ls is the paper's main model"
        )
    changes = parsed(asked, XstarsRecipe, gpu)
    images = open_sensors(asked.data)
    wanted = recipe(preset, asked.form, **{name: value for name, value in changes.items() if name != "sensors"}).sensors
    if "sensors" not in changes and not set(wanted) <= set(images.sensors) and "source" not in changes:
        notes.append(f"sensors of the data: {', '.join(images.sensors)} (the preset has {', '.join(wanted)})")
        changes["sensors"] = images.sensors
    used = changes.get("sensors", wanted)
    for sensor in used:
        choose("sensor in the data", sensor, images.sensors)
    unknown = [sensor for sensor in used if sensor not in SENSORS]
    if unknown and "statistics" not in changes:
        measured = []
        for sensor in unknown:
            mean, std, side = statistics(images, sensor)
            measured.append(Sensor(sensor, tuple(round(m, 6) for m in mean), tuple(round(s, 6) for s in std), side))  # type: ignore[arg-type]
        changes["statistics"] = tuple(measured)
        notes.append(f"statistics measured on the data: {', '.join(unknown)}")
    made = recipe(preset, asked.form, **changes)
    if asked.init_weights != "official" and not asked.init:
        raise UserError("--init-weights says where weights are; --init says of which model")
    start: dict[str, Any] = {}
    if asked.init:
        import models

        digest = weights_digest(models.card(asked.init), asked.init_weights, cache)
        start = {"init": asked.init, "init_weights": digest}
    elif made.mode == "continual":
        raise UserError(
            "continual pretraining goes on from weights: --init MODEL, with --init-weights PATH if they are a file"
        )

    def build() -> "Pretraining":
        from models.pretraining.xstars import XstarsPretraining

        if not asked.init:
            return XstarsPretraining(made)
        import models

        return XstarsPretraining(made, models.build(asked.init, asked.init_weights, cache))

    return Prepared(
        made,
        images,
        build,
        start,
        tuple(notes) + enlarged(images, made.input_size),
        len(made.crop_sensors),
        made.adapter,
        False,
        made.input_size,
        made.crop_sensors[0],
    )


def enlarged(images: "Images", view: int) -> tuple[str, ...]:
    """A sentence where the first image is smaller than a view; also the place where unreadable data show at once."""
    height, width = next(iter(images[0].values())).shape[1:]
    if min(height, width) >= view:
        return ()
    return (f"images of {height}x{width} pixels are smaller than views of {view}: crops are enlarged",)


def parsed(asked: Asked, recipe: type, gpu: bool) -> dict[str, Any]:
    """The switches of --set, --epochs, --batch and --precision as values of the recipe's fields. Raises `UserError`."""
    known = {entry.name: entry for entry in fields(recipe)}
    found: dict[str, Any] = {}
    if not gpu and not asked.precision:
        found["precision"] = "fp32"
    for text in asked.switches:
        name, given, value = text.partition("=")
        if not given:
            raise UserError(f"--set {text} sets nothing; write SWITCH=VALUE")
        choose(f"switch of {asked.method}", name, [key for key in known if key not in ("name", "recipe")])
        entry = known[name]
        assert entry.default is not MISSING
        found[name] = value_of(name, value, entry.default)
    for name in ("epochs", "batch", "precision"):
        if (value := getattr(asked, name)) is not None:
            found[name] = value
    if found.get("precision") == "fp16" and not gpu:
        raise UserError("--precision fp16 needs a GPU; on a CPU choose fp32 or bf16")
    return found


def value_of(name: str, text: str, default: Any) -> Any:
    """A switch's text as a value of the kind of its default: on/off, a number, a word, or several with commas."""
    try:
        if isinstance(default, bool):
            return {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            kind = type(default[0]) if default else str
            values = tuple(kind(part) for part in text.split(",") if part)
            if kind is not str and name not in ("depths", "heads") and len(values) != len(default):
                raise ValueError(text)
            return values
        return type(default)(text)
    except (ValueError, KeyError) as error:
        kinds = {bool: "on or off", int: "a whole number", float: "a number"}
        wanted = (
            f"{len(default)} values with commas" if isinstance(default, tuple) else kinds.get(type(default), "a word")
        )
        raise UserError(f"--set {name}={text}: {name} is {wanted}, {default!r} by default") from error


def preset_names(method: str) -> Sequence[str]:
    """The presets of a method."""
    if method == "deo":
        from models.pretraining.deo_recipe import PRESETS
    else:
        from models.pretraining.xstars_recipe import PRESETS
    return tuple(PRESETS)
