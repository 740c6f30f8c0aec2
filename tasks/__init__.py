"""What is measured. A task is a file here with one verb, `evaluate`; suites name tasks, and only those present can run."""

from pathlib import Path

TASKS = ("knn", "linear_probe", "segmentation", "change_detection")


def names() -> tuple[str, ...]:
    """The tasks that this version has, in the order of the paper's tables."""
    folder = Path(__file__).parent
    return tuple(task for task in TASKS if (folder / f"{task}.py").exists())
