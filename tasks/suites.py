"""The suites, as readable tables: which data sets, which tasks on each, and which task's number is ranked."""

from dataclasses import dataclass

CLASSIFICATION = ("knn", "linear_probe")
SEGMENTATION = ("segmentation",)


@dataclass(frozen=True)
class Cell:
    """One data set and one task; `primary` marks the task whose primary metric stands for the data set in the ranks."""

    dataset: str
    task: str
    primary: bool


@dataclass(frozen=True)
class Suite:
    """A named list of cells and the protocol it runs under unless another is asked for."""

    name: str
    title: str
    protocol: str
    datasets: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for dataset, tasks in self.datasets for cell in cells(dataset, tasks))


def cells(dataset: str, tasks: tuple[str, ...]) -> tuple[Cell, ...]:
    """The cells of one data set; of several tasks the last is the ranked one (linear probing after k-NN)."""
    return tuple(Cell(dataset, task, task == tasks[-1]) for task in tasks)


def tasks_for(label: str) -> tuple[str, ...]:
    """The tasks that fit a data set's kind of label."""
    return {
        "class": CLASSIFICATION,
        "multilabel": CLASSIFICATION,
        "mask": SEGMENTATION,
        "change": ("change_detection",),
    }[label]


GEOBENCH = (
    ("m-pv4ger-seg", SEGMENTATION),
    ("m-nz-cattle", SEGMENTATION),
    ("m-chesapeake-landcover", SEGMENTATION),
    ("m-cashew-plantation", SEGMENTATION),
    ("m-SA-crop-type", SEGMENTATION),
    ("m-bigearthnet", CLASSIFICATION),
    ("m-so2sat", CLASSIFICATION),
    ("m-eurosat", CLASSIFICATION),
)

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "demo",
            "the synthetic twin: runs anywhere, proves that the walk works, says nothing about models",
            "demo",
            (("demo-eurosat", CLASSIFICATION), ("demo-bigearthnet", CLASSIFICATION)),
        ),
        Suite(
            "geobench", "GEO-Bench v1: the five segmentation and three classification sets of DEO", "clean", GEOBENCH
        ),
        Suite(
            "geobench-full",
            "GEO-Bench v1: all twelve sets",
            "clean",
            (
                *GEOBENCH,
                ("m-NeonTree", SEGMENTATION),
                ("m-brick-kiln", CLASSIFICATION),
                ("m-forestnet", CLASSIFICATION),
                ("m-pv4ger", CLASSIFICATION),
            ),
        ),
    )
}
