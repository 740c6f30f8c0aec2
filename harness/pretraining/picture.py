"""The curve of a training as a picture: a panel for every loss over the steps, and for every score of the probe."""

from pathlib import Path

from harness.figures import figure_file
from harness.pretraining.log import lines

NAME = "curve.png"
SMOOTHED = 50  # points of a loss at most: each is the mean of its neighbours
ACROSS, WIDE, HIGH = 2, 3.6, 2.2  # panels in a line, and the inches of one
OUTSIDE = ("step", "time", "learning_rate", "weight_decay", "seconds", "images_per_second", "memory_mb", "probe")


def draw(out: Path) -> Path | None:
    """Write `curve.png` beside the curve in `out`; None where there is no step yet. Raises `JournalError` on a full disk."""
    found = lines(out)
    steps = [line for line in found if "loss" in line]
    probes = [line for line in found if "probe" in line]
    if not steps:
        return None
    every = max(1, len(steps) // SMOOTHED)
    parts = [steps[start : start + every] for start in range(0, len(steps), every)]
    panels = {
        name: [(part[-1]["step"] + 1, sum(line[name] for line in part) / len(part)) for part in parts]
        for name in steps[0]
        if name not in OUTSIDE
    }
    for name in probes[0]["probe"] if probes else ():
        panels[f"probe: {name}"] = [(line["step"] + 1, line["probe"][name]) for line in probes]
    down = -(-len(panels) // ACROSS)
    with figure_file(out / NAME, min(ACROSS, len(panels)) * WIDE, down * HIGH) as figure:
        for number, (name, points) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(down, min(ACROSS, len(panels)), number)
            axes.plot(
                *zip(*points, strict=True), linewidth=1.2, marker="o" if name.startswith("probe") else "", markersize=3
            )
            axes.set_title(name.replace("_", " "), fontsize=9)
            axes.tick_params(labelsize=7)
            axes.set_xlabel("step", fontsize=7)
        figure.tight_layout()
    return out / NAME
