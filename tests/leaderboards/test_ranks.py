import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leaderboards.ranks import Standing, build, rank, summary
from leaderboards.results import Journal, Record
from leaderboards.table import Cell, Row, rows

CELLS = [
    Cell("pv", "linear_probe", "optical", primary=True),
    Cell("eurosat", "knn", "ms", primary=False),
    Cell("eurosat", "linear_probe", "ms", primary=True),
    Cell("so2sat", "linear_probe", "ms", primary=True),
]
PLAIN = Row(
    model="",
    variant="",
    weights="0a1b2c3d",
    label="",
    modality="",
    suite="suite",
    dataset="",
    task="linear_probe",
    metric="accuracy",
    protocol="clean",
    train_fraction="1.00x",
    value=0.0,
    std=None,
    ci_low=None,
    ci_high=None,
    n_seeds=1,
    n_draws=1,
    primary=True,
    run_ids=("r",),
    headline=True,
    limit=None,
    data="v1",
)


def made(scores: dict[str, tuple[float | None, float | None, float | None]], **changes: object) -> list[Row]:
    """Rows from a table: model -> scores on pv, eurosat, so2sat (None: not measured)."""
    return [
        replace(PLAIN, model=model, dataset=dataset, value=value, **changes)
        for model, values in scores.items()
        for dataset, value in zip(("pv", "eurosat", "so2sat"), values, strict=True)
        if value is not None
    ]


def brief(standings: list[Standing]) -> list[tuple[object, ...]]:
    return [(one.model, one.optical, one.ms, one.overall) for one in standings]


def test_ranks_are_averaged_by_group_and_ties_share_their_mean_rank() -> None:
    table = made({"a": (0.9, 0.5, 0.7), "b": (0.8, 0.5, 0.9), "c": (0.7, 0.4, 0.7), "d": (0.7, 0.6, 0.7)})
    standings, notes = rank(table, CELLS)
    # pv: 1 2 3.5 3.5; eurosat: 2.5 2.5 4 1; so2sat: 3 1 3 3; equal overall ranks stand by name
    assert brief(standings) == [
        ("a", 1.0, 2.75, 1.875),
        ("b", 2.0, 1.75, 1.875),
        ("d", 3.5, 2.0, 2.75),
        ("c", 3.5, 3.5, 3.5),
    ]
    assert {(one.n_optical, one.n_ms) for one in standings} == {(1, 2)}
    assert notes == []


def test_values_that_print_alike_are_tied() -> None:
    standings, _ = rank(
        made({"a": (0.5, 0.5000001, 0.1), "b": (0.5, 0.5000004, 0.1), "c": (0.5, 0.5000011, 0.1)}), CELLS
    )
    assert [(one.model, one.ms) for one in standings] == [("c", 1.5), ("a", 2.25), ("b", 2.25)]


def test_a_model_that_lacks_a_data_set_is_listed_last_and_has_no_average() -> None:
    standings, notes = rank(made({"a": (0.5, 0.6, 0.7), "b": (0.9, 0.9, None), "c": (0.4, 0.7, 0.8)}), CELLS)
    # pv: a 2, b 1, c 3; eurosat: a 3, b 1, c 2; so2sat: a 2, c 1
    assert brief(standings) == [("a", 2.0, 2.5, 2.25), ("c", 3.0, 1.5, 2.25), ("b", None, None, None)]
    assert (standings[2].n_optical, standings[2].n_ms) == (1, 1)
    assert notes == ["b 0a1b2c3d: no average rank, it lacks so2sat"]


def test_a_data_set_that_nobody_has_is_said_and_does_not_make_everybody_incomplete() -> None:
    standings, notes = rank(made({"a": (0.5, 0.6, None), "b": (0.4, 0.7, None)}), CELLS)
    assert brief(standings) == [("a", 1.0, 2.0, 1.5), ("b", 2.0, 1.0, 1.5)]
    assert {one.n_ms for one in standings} == {1}
    assert notes == ["not measured, so not in the ranks: so2sat"]


def test_there_is_no_overall_rank_while_a_whole_group_is_missing() -> None:
    standings, notes = rank(made({"a": (None, 0.6, 0.5), "b": (None, 0.7, 0.9)}), CELLS)
    assert brief(standings) == [("b", None, 1.0, None), ("a", None, 2.0, None)]
    assert notes == ["not measured, so not in the ranks: pv"]


def test_a_suite_of_one_group_has_that_group_as_its_overall_rank() -> None:
    standings, notes = rank(made({"a": (None, 0.6, 0.5), "b": (None, 0.7, 0.9)}), CELLS[1:])
    assert brief(standings) == [("b", None, 1.0, 1.0), ("a", None, 2.0, 2.0)]
    assert notes == []


def test_only_primary_rows_are_ranked() -> None:
    other = made({"b": (0.9, 0.9, 0.9)}, primary=False, metric="accuracy_logistic")
    assert brief(rank(made({"a": (0.5, 0.6, 0.7)}) + other, CELLS)[0]) == [("a", 1.0, 1.0, 1.0)]


def test_random_weights_never_stand_beside_real_ones() -> None:
    table = made({"a": (0.1, 0.1, 0.1)}) + made({"a": (0.9, 0.9, 0.9), "b": (0.8, 0.8, 0.8)}, weights="random")
    standings, _ = rank(table, CELLS)
    found = [(one.model, one.weights, one.overall) for one in standings]
    assert found == [("a", "0a1b2c3d", 1.0), ("a", "random", 1.0), ("b", "random", 2.0)]


@pytest.mark.parametrize("weights", ["0a1b2c3d", "random"])
def test_a_model_without_weights_stands_beside_either(weights: str) -> None:
    table = made({"stats": (0.5, 0.5, 0.5)}, weights="none") + made({"a": (0.6, 0.6, 0.6)}, weights=weights)
    assert brief(rank(table, CELLS)[0]) == [("a", 1.0, 1.0, 1.0), ("stats", 2.0, 2.0, 2.0)]


def test_a_model_without_weights_stands_beside_the_real_ones_where_there_are_both() -> None:
    table = made({"stats": (0.5, 0.5, 0.5)}, weights="none") + made({"a": (0.6, 0.6, 0.6)})
    table += made({"a": (0.4, 0.4, 0.4)}, weights="random")
    found = [(one.model, one.weights, one.overall) for one in rank(table, CELLS)[0]]
    assert found == [("a", "0a1b2c3d", 1.0), ("stats", "none", 2.0), ("a", "random", 1.0)]


@pytest.mark.parametrize(
    "other",
    [{"limit": 8, "label": "[limit 8]"}, {"protocol": "deo-paper"}, {"train_fraction": "0.10x"}],
    ids=["limit", "protocol", "fraction"],
)
def test_runs_under_other_conditions_are_never_ranked_together(other: dict[str, object]) -> None:
    standings, _ = rank(made({"a": (0.5, 0.5, 0.5)}) + made({"b": (0.9, 0.9, 0.9)}, **other), CELLS)
    assert [one.overall for one in standings] == [1.0, 1.0]


def test_variants_and_checkpoints_of_one_model_are_ranked_as_models_of_their_own() -> None:
    table = made({"deo": (0.5, 0.5, 0.5)}, variant="swin") + made({"deo": (0.6, 0.6, 0.6)}, variant="vit")
    table += made({"deo": (0.7, 0.7, 0.7)}, variant="default", weights="ffffffff", label="mine")
    found = [(one.model, one.weights, one.label, one.overall) for one in rank(table, CELLS)[0]]
    assert found == [
        ("deo", "ffffffff", "mine", 1.0),
        ("deo:vit", "0a1b2c3d", "", 2.0),
        ("deo:swin", "0a1b2c3d", "", 3.0),
    ]


def test_rows_on_another_primary_metric_are_not_compared() -> None:
    table = made({"a": (0.5, 0.5, 0.5), "b": (0.6, 0.6, 0.6)}) + made({"c": (0.9, 0.9, 0.9)})[:2]
    table += made({"c": (None, None, 0.9)}, metric="f1_macro")
    standings, notes = rank(table, CELLS)
    assert [(one.model, one.overall) for one in standings] == [("b", 1.75), ("a", 2.75), ("c", None)]
    assert notes == [
        "so2sat: ranked by accuracy; rows with another primary metric count as missing",
        "c 0a1b2c3d: no average rank, it lacks so2sat",
    ]


def test_unlike_test_sets_are_said() -> None:
    _, notes = rank(made({"a": (0.5, 0.5, 0.5)}) + made({"b": (0.6, 0.6, 0.6)}, data="v2")[:1], CELLS[:1])
    assert notes == ["pv: the ranked rows were measured on different versions or splits of the data"]


def test_notes_of_several_comparisons_say_which_they_mean() -> None:
    table = made({"a": (0.5, 0.5, 0.5), "b": (0.5, 0.5, None)}) + made({"a": (0.5, 0.5, 0.5)}, train_fraction="0.10x")
    assert rank(table, CELLS)[1] == ["clean, train 1.00x: b 0a1b2c3d: no average rank, it lacks so2sat"]


@pytest.fixture
def journal(tmp_path: Path, record: Callable[..., Record]) -> Journal:
    journal = Journal(tmp_path / "runs")
    for dataset in ("pv", "eurosat", "so2sat"):
        journal.append(record(0.8, dataset=dataset))
        journal.append(record(0.6, dataset=dataset, model="imagestats", variant="", weights="none"))
    journal.append(record(0.75, dataset="eurosat", task="knn", seed=None))
    return journal


def test_both_files_are_written_and_twice_gives_the_same_bytes(journal: Journal, tmp_path: Path) -> None:
    (board,) = build(journal, "suite", CELLS, tmp_path / "out")
    assert (board.csv.name, board.ranks.name) == ("suite.csv", "suite_ranks.csv")
    assert board.ranks.read_text().splitlines() == [
        "model,optical,ms,overall,n_optical,n_ms",
        "deo:swin,1.000000,1.000000,1.000000,1,2",
        "imagestats,2.000000,2.000000,2.000000,1,2",
    ]
    assert len(board.csv.read_text().splitlines()) == 8
    before = board.csv.read_bytes(), board.ranks.read_bytes()
    build(journal, "suite", CELLS, tmp_path / "out")
    assert (board.csv.read_bytes(), board.ranks.read_bytes()) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["suite.csv", "suite_ranks.csv"]


def test_columns_that_tell_lines_apart_appear_where_there_is_something_to_tell(
    journal: Journal, record: Callable[..., Record], tmp_path: Path
) -> None:
    journal.append(record(0.3, dataset="pv", weights="random-0"))
    journal.append(record(0.3, dataset="pv", protocol="deo-paper", label="mine", switches={}))
    (board,) = build(journal, "suite", CELLS, tmp_path / "out")
    assert board.ranks.read_text().splitlines() == [
        "model,weights,label,protocol,optical,ms,overall,n_optical,n_ms",
        "deo:swin,01234567,,clean,1.000000,1.000000,1.000000,1,2",
        "imagestats,none,,clean,2.000000,2.000000,2.000000,1,2",
        "deo:swin,random,,clean,1.000000,,,1,0",
        "deo:swin,01234567,mine,deo-paper,1.000000,,,1,0",
    ]


def test_an_empty_journal_makes_empty_tables(tmp_path: Path) -> None:
    (board,) = build(Journal(tmp_path / "runs"), "suite", CELLS, tmp_path / "out")
    assert board.ranks.read_text() == "model,optical,ms,overall,n_optical,n_ms\n"
    assert board.notes == ["not measured, so not in the ranks: pv, eurosat, so2sat"]
    assert summary(board) == []


def test_the_summary_has_a_line_per_model_and_a_column_per_cell(journal: Journal, tmp_path: Path) -> None:
    lines = summary(build(journal, "suite", CELLS, tmp_path / "out")[0])
    assert lines == [
        {
            "model": "deo:swin",
            "pv linear_probe": "0.800",
            "eurosat knn": "0.750",
            "eurosat linear_probe": "0.800",
            "so2sat linear_probe": "0.800",
            "optical": "1.00",
            "ms": "1.00",
            "overall": "1.00",
        },
        {
            "model": "imagestats",
            "pv linear_probe": "0.600",
            "eurosat knn": "",
            "eurosat linear_probe": "0.600",
            "so2sat linear_probe": "0.600",
            "optical": "2.00",
            "ms": "2.00",
            "overall": "2.00",
        },
    ]


def test_the_summary_shows_models_that_are_not_ranked_and_half_the_width_of_intervals(
    tmp_path: Path, record: Callable[..., Record]
) -> None:
    journal, label = Journal(tmp_path / "runs"), np.arange(100) % 2
    arrays = {"label": label, "prediction": np.where(np.arange(100) < 80, label, 1 - label)}
    journal.append(record(0.8, dataset="eurosat", task="knn", seed=None), arrays)
    (line,) = summary(build(journal, "suite", CELLS, tmp_path / "out")[0])
    assert re.fullmatch(r"0\.800 ± 0\.0[78]\d", line["eurosat knn"])
    assert (line["optical"], line["ms"], line["overall"]) == ("", "", "")


OPTICAL = ("SpaceNetv1", "m-nz-cattle", "m-pv4ger-seg", "m-chesapeake-landcover", "LEVIR-CD")


def test_the_ranks_of_deo_follow_from_its_published_tables(
    shared: Path, tmp_path: Path, record: Callable[..., Record]
) -> None:
    """Tables 1-3: ten models, 5 optical and 8 multispectral data sets; the expected ranks were worked out apart."""
    journal, found = Journal(tmp_path), {}
    for name in ("table1_segmentation", "table2_change_detection", "table3_classification"):
        with (shared / "published" / f"deo_{name}.csv").open() as file:
            for line in csv.DictReader(file):
                if line["suite"] != "aggregate":
                    found[line["model"], line["dataset"]] = line["task"], float(line["value"])
    for (model, dataset), (task, value) in found.items():
        journal.append(record(value, model=model, variant="", dataset=dataset, task=task, switches={}))
    cells = [
        Cell(dataset, task, "optical" if dataset in OPTICAL else "ms", primary=True)
        for dataset, task in {dataset: task for (_, dataset), (task, _) in found.items()}.items()
    ]
    standings, notes = rank(rows(journal, "deo", cells), cells)
    assert notes == []
    assert {(one.n_optical, one.n_ms) for one in standings} == {(5, 8)}
    written = {
        one.model: tuple(f"{mean:.2f}" for mean in (one.optical, one.ms, one.overall) if mean is not None)
        for one in standings
    }
    lines = re.findall(
        r"^\| (\S+) \| ([\d.]+) \([\d.]+\) \| ([\d.]+) \([\d.]+\) \| ([\d.]+) \(",
        (shared / "published" / "README.md").read_text(),
        re.MULTILINE,
    )
    assert len(lines) == 10
    assert written == {model: tuple(means) for model, *means in lines}
    assert written["DEO"] == ("2.00", "1.38", "1.69")
    assert [one.model for one in standings] == [model for model, *_ in lines]


def test_a_second_task_has_a_rank_table_of_its_own_over_the_sets_that_have_it(record, tmp_path) -> None:
    cells = [cell for cell in CELLS if cell.dataset == "eurosat"]
    journal = Journal(tmp_path / "runs")
    for model, knn, linear in (("one", 0.9, 0.1), ("two", 0.2, 0.8)):
        journal.append(record(knn, model=model, dataset="eurosat", task="knn", seed=None))
        journal.append(record(linear, model=model, dataset="eurosat"))
    first, second = build(journal, "suite", cells, tmp_path / "out", "knn")
    assert [line.model for line in first.standings] == ["two:swin", "one:swin"]
    assert [line.model for line in second.standings] == ["one:swin", "two:swin"]
    assert (first.ranks.name, second.ranks.name) == ("suite_ranks.csv", "suite_knn_ranks.csv")
    assert first.csv == second.csv


def test_a_switch_of_one_task_does_not_part_a_models_tasks_into_two_lines(record, tmp_path) -> None:
    journal = Journal(tmp_path / "runs")
    for model, score in (("one", 0.9), ("two", 0.2)):
        for dataset in ("pv", "eurosat", "so2sat"):
            label = "linear_probe.epochs=2" if dataset == "pv" and model == "one" else ""
            journal.append(record(score, model=model, dataset=dataset, label=label, given=""))
    (board,) = build(journal, "suite", CELLS, tmp_path / "out")
    assert [(one.model, one.label, one.overall) for one in board.standings] == [
        ("one:swin", "", 1.0),
        ("two:swin", "", 2.0),
    ]
    assert board.notes == ["pv: ranked under different switches (one:swin linear_probe.epochs=2)"]
    assert "linear_probe.epochs=2" in (tmp_path / "out/suite.csv").read_text()
