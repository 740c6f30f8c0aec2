"""Planning is pure: every cell becomes a job or a skip with its reason."""

from dataclasses import replace
from pathlib import Path

import pytest

import models
from harness.plan import plan, skip_lines
from models.common.weights import Located
from tasks.data import catalogue
from tasks.protocols import PROTOCOLS
from tasks.suites import SUITES, cells

RANDOM = Located("random", None, "random-0")
EUROSAT = catalogue.card("m-eurosat")


def planned(
    labels=("deo",), chosen=None, *, here=True, weights=RANDOM, protocol="clean", fractions=("1.00x",), dataset=EUROSAT
):
    pairs = [(cell, dataset) for cell in chosen or cells(dataset.name, ("knn", "linear_probe"))]
    return plan(
        [models.card(label) for label in labels],
        pairs,
        PROTOCOLS[protocol],
        fractions=fractions,
        find=lambda card: Path("somewhere") if here else None,
        remedy=lambda card: f"fetch {card.name}",
        weights=lambda card: weights,
    )


def test_every_cell_model_and_fraction_is_one_job_with_its_seeds():
    jobs, skips = planned(("deo", "imagestats"), fractions=("0.10x", "1.00x"))
    assert not skips
    assert [(job.card.label, job.task, job.fraction, job.seeds) for job in jobs[:4]] == [
        ("deo", "knn", "0.10x", (None,)),
        ("deo", "knn", "1.00x", (None,)),
        ("deo", "linear_probe", "0.10x", (0, 1, 2, 3, 4)),
        ("deo", "linear_probe", "1.00x", (0, 1, 2, 3, 4)),
    ]
    assert len(jobs) == 8


def test_of_two_tasks_on_a_data_set_linear_probing_is_ranked():
    jobs, _ = planned()
    assert {job.task: job.primary for job in jobs} == {"knn": False, "linear_probe": True}


def test_a_data_set_that_is_not_here_is_skipped_with_the_remedy():
    jobs, skips = planned(("deo", "dinov2"), here=False)
    assert not jobs
    assert len(skips) == 4
    assert skip_lines(skips) == ["skipped m-eurosat: not on this machine; fetch m-eurosat"]


def test_a_model_without_weights_is_skipped_for_that_reason_and_the_caller_can_mend_it():
    _, skips = planned(weights="put the file there")
    assert all(skip.mendable and skip.reason == "put the file there" for skip in skips)


def test_weights_are_not_asked_for_where_the_data_is_missing():
    def never(card):
        raise AssertionError("a download for nothing")

    pairs = [(cell, EUROSAT) for cell in cells("m-eurosat", ("knn",))]
    jobs, skips = plan(
        *([models.card("deo")], pairs, PROTOCOLS["clean"]),
        fractions=["1.00x"],
        find=lambda card: None,
        remedy=lambda card: "fetch it",
        weights=never,
    )
    assert not jobs
    assert "fetch it" in skips[0].reason


def test_a_task_that_this_version_lacks_is_said():
    _, skips = planned(chosen=cells("m-eurosat", ("no_such_task",)))
    assert "no_such_task is not part of this version" in skips[0].reason


def test_bands_that_a_model_cannot_read_are_named():
    radar = replace(EUROSAT, bands=EUROSAT.bands[:1])
    _, skips = planned(dataset=radar)
    assert "S2:B04" in skips[0].reason


@pytest.mark.parametrize("name", list(SUITES))
def test_every_suite_names_known_data_sets_and_ranks_each_once(name: str):
    suite = SUITES[name]
    assert suite.protocol in PROTOCOLS
    for dataset, tasks in suite.datasets:
        assert catalogue.card(dataset).name == dataset
        assert sum(cell.primary for cell in suite.cells if cell.dataset == dataset) == 1
        assert tasks
