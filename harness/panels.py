"""Pictures to look at: predictions beside their labels, and the features of several models side by side.

The second kind is that of Figure 3 of DEO (Wolf et al., CVPR 2026, arXiv 2602.19863). The same input gives the same
bytes: no date and no version in the file, and matplotlib's own style whatever the machine's settings say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.figures import figure_file
from models.common.errors import UserError
from models.common.spectral import COMMON

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
STRETCH = (2, 98)  # percentiles of a channel that are shown as black and as full
MOST_PANELS = 100  # Agg draws at most 2^16 pixels along a side
MOST_LISTED = 10  # of more classes than these, the legend lists those that can be seen
ACROSS = 5  # PCA maps in a line
CELL, GAP, LINE, LEGEND = 2.6, 0.08, 0.22, 0.18  # inches: picture, space between two, line of text, of the legend
BACKGROUND, FOREGROUND = "#f2f2f2", "#0072b2"
RIGHT, WRONG, IGNORED = "#c3dcc0", "#d55e00", "#000000"


@dataclass(frozen=True)
class Panel:
    """One test image and what a model made of it.

    `image` (C, H, W) in sensor units, `bands` the canonical names of its channels (without: the first three are red,
    green, blue); `before`, for pairs, the earlier date in the same shape, `image` then is the later one. `label` and
    `prediction` (H, W) are classes.
    """

    model: str
    dataset: str
    name: str
    image: Array
    label: Array
    prediction: Array
    bands: Sequence[str] = ()
    before: Array | None = None


def panels(path: Path, rows: Sequence[Panel], classes: Sequence[str], ignore: int) -> None:
    """Write a PNG with a row per panel: image (or both dates), label, prediction, and where it is right and wrong.

    All rows are pairs, or none is. The number over a row is the image's own mean IoU over the classes of its label, for
    pairs the IoU of the change class. Raises `UserError` for more panels than a picture can hold, `JournalError` if the
    file cannot be written; what was at `path` then stays.
    """
    if len(rows) > MOST_PANELS:
        raise UserError(f"{len(rows)} panels do not fit into one picture: ask for {MOST_PANELS} at most")
    pairs = {row.before is not None for row in rows}
    if len(pairs) != 1:
        raise ValueError("a picture needs panels, all of pairs or all of single images")
    heads = [*(["before", "after"] if pairs.pop() else ["image"]), "label", "prediction", "errors"]
    colours = _colours(len(classes))
    entries = _legend(rows, classes, colours, ignore)

    width = len(heads) * (CELL + GAP) + GAP
    pitch = 0.28 + 0.075 * max(len(text) for text, _ in entries)  # inches that an entry needs
    columns = max(1, min(len(entries), int(width / pitch)))
    foot = LINE + LEGEND * -(-len(entries) // columns)
    cells = [_side(row.label.shape) for row in rows]
    height = foot + LINE + sum(cells) + len(rows) * (LINE + GAP)
    with figure_file(path, width, height) as figure:
        for column, head in enumerate(heads):
            _text(figure, GAP + column * (CELL + GAP) + CELL / 2, height - LINE / 2, head, ha="center", weight="bold")
        top = height - LINE
        for row, cell in zip(rows, cells, strict=True):
            title = f"{row.model} on {row.dataset}, {row.name}: {_score(row, len(classes), ignore)}"
            _text(figure, GAP, top - LINE / 2, title, ha="left")
            for column, picture in enumerate(_pictures(row, colours, ignore)):
                _show(figure, GAP + column * (CELL + GAP), top - LINE - cell, CELL, cell, picture)
            top -= cell + LINE + GAP
        _draw_legend(figure, entries, columns)


def pca_panel(
    path: Path, image: Array, features: Mapping[str, Array], bands: Sequence[str] = (), title: str = ""
) -> None:
    """Write a PNG with an image (C, H, W) and, by model, the first principal components of its features (C, h, w).

    Every model's components are its own: equal colours within a map are similar features, between maps they mean
    nothing. Raises `UserError` for features that hold NaN or infinite values, `JournalError` if the file cannot be
    written; what was at `path` then stays.
    """
    height_of, width_of = image.shape[1:]
    pictures = {"image": rendered(bands, image)[0]}
    for model, maps in features.items():
        if not np.isfinite(maps).all():
            raise UserError(f"the features of {model} hold NaN or infinite values: mend or drop that image")
        size = " x ".join(map(str, maps.shape))
        pictures[f"{model} ({size})"] = nearest(principal_colours(maps), height_of, width_of)

    across = min(ACROSS, len(pictures))
    down = -(-len(pictures) // across)
    cell = _side(image.shape[1:])
    head = LINE if title else 0
    width, height = across * (CELL + GAP) + GAP, head + down * (LINE + cell + GAP)
    with figure_file(path, width, height) as figure:
        if title:
            _text(figure, GAP, height - LINE / 2, title, ha="left", weight="bold")
        for number, (name, picture) in enumerate(pictures.items()):
            line, column = divmod(number, across)
            left, top = GAP + column * (CELL + GAP), height - head - line * (LINE + cell + GAP)
            _text(figure, left + CELL / 2, top - LINE / 2, name, ha="center")
            _show(figure, left, top - LINE - cell, CELL, cell, picture)


def rendered(bands: Sequence[str], *images: Array) -> list[Array]:
    """Images (C, H, W) -> RGB (H, W, 3) in 0..1: red, green, blue by name, else the first three channels, else grey.

    Each channel is stretched from its 2nd to its 98th percentile, taken over all the images together, so that two dates
    stay comparable. What is not finite is black.
    """
    named = [next((i for i, band in enumerate(bands) if band in COMMON[colour]), None) for colour in COMMON]
    count = len(images[0])
    chosen = [i for i in named if i is not None]
    if len(chosen) < 3:
        chosen = [0, 1, 2] if count >= 3 else [0, 0, 0]
    channels = [image[chosen].astype(np.float64) for image in images]
    low, high = np.zeros((2, 3, 1, 1))
    for channel in range(3):
        values = np.concatenate([part[channel].ravel() for part in channels])
        values = values[np.isfinite(values)]
        if len(values):
            low[channel], high[channel] = np.percentile(values, STRETCH)
    spread = np.where(high > low, high - low, 1)
    pictures = [np.where(np.isfinite(part), (part - low) / spread, 0).clip(0, 1) for part in channels]
    return [picture.transpose(1, 2, 0) for picture in pictures]


def principal_colours(features: Array) -> Array:
    """Features (C, h, w) -> RGB (h, w, 3) in 0..1: three principal components, from -2 to +2 standard deviations.

    The sign of a component is such that its largest weight is positive. A component without variance is mid-grey.
    """
    channels, height, width = features.shape
    pixels = features.reshape(channels, -1).T.astype(np.float64)
    pixels = pixels - pixels.mean(axis=0)
    _, axes = np.linalg.eigh(pixels.T @ pixels)  # by ascending variance
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    components = np.zeros((len(pixels), 3))
    components[:, : axes.shape[1]] = pixels @ axes
    deviation = components.std(axis=0)
    noise = deviation <= 1e-6 * max(deviation[0], np.finfo(np.float64).tiny)
    scores = np.where(noise, 0, components / np.where(noise, 1, deviation))
    return (scores / 4 + 0.5).clip(0, 1).reshape(height, width, 3)


def nearest(picture: Array, height: int, width: int) -> Array:
    """A picture (h, w, ...) -> (height, width, ...), each pixel that of the cell its centre lies in."""
    rows, columns = (
        ((np.arange(size) + 0.5) * have / size).astype(int)
        for size, have in zip((height, width), picture.shape, strict=False)
    )
    return picture[rows[:, None], columns]


def _side(shape: Sequence[int]) -> float:
    """The height in inches of a picture that is as wide as a cell; a tall one is made narrower."""
    height, width = shape
    return CELL * min(1, height / width)


def _colours(classes: int) -> Array:
    """A colour for each class, (K, 3) in 0..1: two are told apart as background and foreground."""
    import matplotlib
    from matplotlib.colors import to_rgb

    if classes <= 2:
        return np.array([to_rgb(colour) for colour in (BACKGROUND, FOREGROUND)])
    names = ("tab10",) if classes <= 10 else ("tab20", "tab20b", "tab20c")
    palette = np.concatenate([matplotlib.colormaps[name](range(matplotlib.colormaps[name].N)) for name in names])
    return palette[np.arange(classes) % len(palette), :3]


def _pictures(row: Panel, colours: Array, ignore: int) -> list[Array]:
    from matplotlib.colors import to_rgb

    ignored = row.label == ignore
    label = np.where(ignored[..., None], to_rgb(IGNORED), colours[np.where(ignored, 0, row.label)])
    right = (row.label == row.prediction)[..., None]
    errors = np.where(ignored[..., None], to_rgb(IGNORED), np.where(right, to_rgb(RIGHT), to_rgb(WRONG)))
    dates = [row.image] if row.before is None else [row.before, row.image]
    return [*rendered(row.bands, *dates), label, colours[row.prediction], errors]


def _score(row: Panel, classes: int, ignore: int) -> str:
    import torch

    from tasks.common.confusion import CHANGE, confusion, segmentation_scores

    prediction, label = (torch.from_numpy(np.ascontiguousarray(part)) for part in (row.prediction, row.label))
    counts = confusion(prediction, label, classes, ignore, names=(row.name,)).numpy()
    if not counts.any():
        return "no labelled pixel"
    if row.before is None:
        scores = segmentation_scores(counts[None], [str(k) for k in range(classes)])
        return f"mIoU {scores['miou_macro_present_native']:.2f}"
    union = counts[CHANGE].sum() + counts[:, CHANGE].sum() - counts[CHANGE, CHANGE]
    return f"IoU of change {counts[CHANGE, CHANGE] / union:.2f}" if union else "no change, none predicted"


def _legend(rows: Sequence[Panel], classes: Sequence[str], colours: Array, ignore: int) -> list[tuple[str, Any]]:
    """What the colours mean: classes, then the error map's."""
    seen = np.unique(np.concatenate([part.ravel() for row in rows for part in (row.label, row.prediction)]))
    listed = [k for k in range(len(classes)) if len(classes) <= MOST_LISTED or k in seen]
    entries = [(f"{k} {_cut(classes[k], 30)}", colours[k]) for k in listed]
    entries += [("right", RIGHT), ("wrong", WRONG)]
    return entries + ([("ignored", IGNORED)] if any((row.label == ignore).any() for row in rows) else [])


def _draw_legend(figure: "Figure", entries: Sequence[tuple[str, Any]], columns: int) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, edgecolor="#808080", linewidth=0.5, label=text) for text, colour in entries]
    figure.legend(handles=patches, ncols=columns, loc="lower center", fontsize=8, frameon=False, borderaxespad=0.3)


def _show(figure: "Figure", left: float, bottom: float, width: float, height: float, picture: Array) -> None:
    """Draw a picture (H, W, 3) into a rectangle given in inches, keeping its proportions."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[], anchor="N")
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="#808080")


def _text(figure: "Figure", x: float, y: float, text: str, **style: Any) -> None:
    across, up = figure.get_size_inches()
    figure.text(x / across, y / up, _cut(text, int(14 * across)), va="center", fontsize=8, **style)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
