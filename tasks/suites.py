"""The suites, as readable tables: which data sets, which tasks on each, and which task's number is ranked."""

from dataclasses import dataclass

CLASSIFICATION = ("knn", "linear_probe")
LINEAR = ("linear_probe",)
SEGMENTATION = ("segmentation",)
CHANGE = ("change_detection",)


@dataclass(frozen=True)
class Cell:
    """One data set and one task; `primary` marks the task whose primary metric stands for the data set in the ranks."""

    dataset: str
    task: str
    primary: bool


@dataclass(frozen=True)
class Suite:
    """A named list of cells and the protocol it runs under unless another is asked for.

    `fractions` of the training split are measured unless others are asked for. `sweep` are values of one switch, each of
    which is measured (`input_size=64`). `second` is a task with a rank table of its own (`<suite>_<second>_ranks.csv`), in
    which it stands for the data sets that have it.
    """

    name: str
    title: str
    protocol: str
    datasets: tuple[tuple[str, tuple[str, ...]], ...]
    fractions: tuple[str, ...] = ("1.00",)
    sweep: tuple[str, ...] = ()
    second: str = ""

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
        "change": CHANGE,
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

DEO = (
    ("spacenet1", SEGMENTATION),
    ("m-nz-cattle", SEGMENTATION),
    ("m-pv4ger-seg", SEGMENTATION),
    ("m-chesapeake-landcover", SEGMENTATION),
    ("levir-cd", CHANGE),
    ("m-SA-crop-type", SEGMENTATION),
    ("m-cashew-plantation", SEGMENTATION),
    ("sen1floods11", SEGMENTATION),
    ("pastis", SEGMENTATION),
    ("oscd", CHANGE),
    ("m-bigearthnet", LINEAR),
    ("m-so2sat", LINEAR),
    ("m-eurosat", LINEAR),
)
XSTARS = (
    ("eurosat-rgb", CLASSIFICATION),
    ("worldstrat", CLASSIFICATION),
    ("uc-merced", CLASSIFICATION),
    ("cv-brct", CLASSIFICATION),
    ("flair", SEGMENTATION),
    ("spacenet8", SEGMENTATION),
    ("chesapeake-landsat8", SEGMENTATION),
)

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "demo",
            "the synthetic twin: runs anywhere, proves that the walk works, says nothing about models",
            "demo",
            (
                ("demo-change", CHANGE),
                ("demo-cashew", SEGMENTATION),
                ("demo-eurosat", CLASSIFICATION),
                ("demo-bigearthnet", CLASSIFICATION),
            ),
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
        Suite("deo", "DEO's tables 1 to 3: thirteen data sets, optical and multispectral", "deo-paper", DEO),
        Suite(
            "deo-lowdata",
            "DEO's table 7: a tenth of the training labels",
            "deo-paper",
            (("spacenet1", SEGMENTATION), ("m-SA-crop-type", SEGMENTATION), ("m-bigearthnet", LINEAR)),
            fractions=("0.10",),
        ),
        Suite(
            "xstars",
            "X-STARS' table I: seven RGB data sets; k-NN has a rank table of its own",
            "xstars-paper",
            XSTARS,
            second="knn",
        ),
        Suite(
            "xstars-lowdata",
            "X-STARS' table VII: EuroSAT with 5, 10 and 50% of the training labels",
            "xstars-paper",
            (("eurosat-rgb", LINEAR),),
            fractions=("0.05", "0.10", "0.50"),
        ),
        Suite(
            "xstars-size",
            "X-STARS' table III: the same model at 64 and at 224 pixels",
            "xstars-paper",
            (("eurosat-rgb", LINEAR),),
            sweep=("input_size=64", "input_size=224"),
        ),
    )
}
