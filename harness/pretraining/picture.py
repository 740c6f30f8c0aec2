"""The curve of a training as a picture: every loss over the steps, and below it what the probe measured."""

from pathlib import Path

from harness.figures import figure_file
from harness.pretraining.log import lines

NAME = "curve.png"
SMOOTHED = 50  # of the steps, so many points at most: each is the mean of its neighbours
OUTSIDE = ("step", "time", "learning_rate", "weight_decay", "seconds", "images_per_second", "memory_mb", "probe")


def draw(out: Path) -> Path | None:
    """Write `curve.png` beside the curve in `out`; None where there is no step yet. Raises `JournalError` on a full disk."""
    found = lines(out)
    steps = [line for line in found if "loss" in line]
    probes = [line for line in found if "probe" in line]
    if not steps:
        return None
    with figure_file(out / NAME, 6.4, 4.8 if probes else 2.8) as figure:
        upper = figure.add_subplot(2 if probes else 1, 1, 1)
        every = max(1, len(steps) // SMOOTHED)
        parts = [steps[start : start + every] for start in range(0, len(steps), every)]
        for name in [name for name in steps[0] if name not in OUTSIDE]:
            means = [sum(line[name] for line in part) / len(part) for part in parts]
            upper.plot([part[-1]["step"] + 1 for part in parts], means, label=name, linewidth=1.2)
        upper.set_ylabel("loss")
        upper.legend(fontsize=7, frameon=False)
        if probes:
            lower = figure.add_subplot(2, 1, 2, sharex=upper)
            for name in probes[0]["probe"]:
                values = [line["probe"][name] for line in probes]
                lower.plot(
                    [line["step"] + 1 for line in probes], values, label=name, linewidth=1.2, marker="o", markersize=3
                )
            lower.set_ylabel("k-NN probe")
            lower.legend(fontsize=7, frameon=False)
        figure.axes[-1].set_xlabel("step")
        figure.tight_layout()
    return out / NAME
