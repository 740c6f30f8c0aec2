"""Training subsets. GEO-Bench ships one draw per fraction (unseeded, unstratified, not nested); all share one extraction."""

from models.common.errors import UserError
from tasks.data.dataset import Dataset

FULL = "1.00x"


def fraction_name(text: str) -> str:
    """`0.1`, `0.10`, `0.10x` -> `0.10x`; raises `UserError` outside 0 < fraction <= 1."""
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        raise UserError(f"--train-fraction {text!r} is no number; give 0.01 ... 1.00") from None
    if not 0 < value <= 1:
        raise UserError(f"--train-fraction {text} is not above 0 and at most 1")
    return f"{value:.2f}x"


def train_names(dataset: Dataset, fraction: str) -> tuple[str, ...]:
    """The training samples at a fraction: all of them at `1.00x`, else the data set's own partition of that name."""
    if fraction == FULL:
        return dataset.splits["train"]
    partitions = dataset.partitions()
    name = f"{fraction}_train"
    if name not in partitions:
        known = ", ".join(sorted(partitions)) or "none"
        raise UserError(f"{dataset.card.name} ships no training partition {name!r}; it has {known}")
    return partitions[name]
