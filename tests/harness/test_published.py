"""`rank --published`: tables without a journal, and measured numbers in the column beside."""

from dataclasses import replace
from pathlib import Path

import pytest

import models
from harness import published
from leaderboards.published import PAPERS, read
from leaderboards.results import Identity, Journal, Record
from tasks.data.xstars_cards import XSTARS_CARDS

SCALEMAE = Identity(
    model="scalemae",
    variant="default",
    weights="0123456789abcdef" * 4,
    card_revision=1,
    mode="rgb",
    dataset="m-eurosat",
    dataset_version="v1",
    split_digest="s1",
    task="linear_probe",
    protocol="deo-paper",
    switches={},
    train_fraction="1.00x",
    draw=0,
    seed=0,
    limit=None,
    precision="fp32",
)


def record(runs: Path, identity: Identity, metrics: dict[str, float], primary: str) -> None:
    Journal(runs).append(Record(identity, "ok", metrics, primary, "ms", {"label": "", "seconds": 1.0, "warnings": []}))


def line(printed: str, name: str, table: str) -> list[str]:
    """The words after the model's name, in the first such line below the table's title."""
    below = printed[printed.index(table) :].splitlines()
    return next(text for text in below if text.startswith(name)).removeprefix(name).split()


def test_deo_prints_its_tables_the_recomputed_ranks_and_the_contradictions_without_a_journal(harness):
    code, out, _ = harness("rank", "--published", "deo")
    assert code == 0
    assert line(out, "DEO ", "DEO, table 3")[-1] == "69.22"
    assert line(out, "SatDiFuser ", "DEO, table 4")[:6] == ["2.0", "3.40", "4.7", "6.94", "3.3", "5.17"]
    assert line(out, "DEO ", "DEO, table 7") == ["28.98", "51.89", "76.46"]
    assert "sum to 45.0" in out
    assert "sum to 49.0" in out
    assert out.count("is printed as") == 3


def test_xstars_prints_knn_and_linear_probing_separately(harness):
    code, out, _ = harness("rank", "--published", "xstars")
    assert code == 0
    assert out.count("X-STARS, table I:") == 3
    assert line(out, "SeCo [ResNet50, SeCo dataset]", "k-NN, mean") == ["62.6", "56.4", "36.5", "42.2"]
    assert line(out, "SeCo [ResNet50, SeCo dataset]", "linear probe, frozen") == ["93.9", "69.9", "91.8", "71.8"]


def test_other_tables_are_printed_on_request(harness):
    code, out, _ = harness("rank", "--published", "xstars", "--table", "VII,VIII")
    assert code == 0
    assert "table I:" not in out
    assert line(out, "Scale-MAE", "table VII") == ["75.2", "79.7", "86.7"]
    assert harness("rank", "--published", "deo", "--table", "all")[0] == 0


def test_what_was_measured_stands_in_the_column_beside_the_published_number(harness, tmp_path):
    record(tmp_path / "runs", SCALEMAE, {"accuracy": 0.9314}, "accuracy")
    code, out, _ = harness("rank", "--published", "deo")
    assert code == 0
    words = line(out, "Scale-MAE", "DEO, table 3")
    assert words == ["scalemae,", "01234567,", "deo-paper", "46.06", "44.02", "93.14", "92.4", "60.83"]
    assert line(out, "GFM", "DEO, table 3") == ["51.91", "47.26", "95.5", "64.89"]
    assert "93.14" not in out[out.index("DEO, table 4") :]
    assert not (tmp_path / "leaderboards").exists()


def test_measured_numbers_change_no_published_rank(harness, tmp_path):
    _, before, _ = harness("rank", "--published", "deo", "--table", "4")
    record(tmp_path / "runs", SCALEMAE, {"accuracy": 1.0}, "accuracy")
    _, after, _ = harness("rank", "--published", "deo", "--table", "4")
    assert before == after


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--published", "dea"), "no published paper 'dea', did you mean 'deo'?"),
        (("--published", "xstars", "--table", "IX"), "no table of xstars 'IX', did you mean 'I'?"),
        (("--table", "I"), "--table names a table of a paper"),
        ((), "rank needs --suite NAME, or --published"),
        (("--suite", "dema"), "did you mean 'demo'?"),
    ],
)
def test_a_mistake_is_one_line(harness, arguments, sentence):
    code, _, err = harness("rank", *arguments)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_a_number_whose_task_the_paper_leaves_open_has_no_counterpart():
    numbers = read("xstars")
    assert all(published.counterpart(number) is None for number in numbers if number.table in ("II", "IV", "V", "VIII"))


def test_the_data_sets_of_xstars_are_known_by_a_name_or_alias():
    known = {published.plain(name) for card in XSTARS_CARDS.values() for name in (card.name, *card.aliases)}
    printed = {number.dataset for number in read("xstars")}
    assert {name for name in printed if published.plain(name) not in known} == set()


def test_every_model_that_names_a_published_line_names_one_that_is_there():
    printed = {number.model for paper in PAPERS for number in read(paper)}
    cards = [models.card(f"{name}:{variant}") for name in models.names() for variant in models.card(name).variants]
    missing = {name for card in cards for name in card.published_as} - printed
    assert missing == {"DOFA", "Panopticon"}  # of other papers' tables


def test_no_line_of_a_table_is_wider_than_a_terminal_of_120_columns(harness, tmp_path):
    for name in ("m-eurosat", "m-so2sat", "m-bigearthnet"):
        record(tmp_path / "runs", replace(SCALEMAE, dataset=name), {"accuracy": 0.5}, "accuracy")
    for paper in PAPERS:
        _, out, _ = harness("rank", "--published", paper, "--table", "all")
        tables = out[: out.index("where each published number is from")]
        assert max(map(len, tables.splitlines())) <= 120
