"""`data list`, `fetch`, `check` and `twin` as a user would call them."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import data_verbs
from models.common.errors import UserError
from tasks.data import catalogue
from tests.tasks.data.test_folder import roofs
from tests.tasks.data.test_origins import Files, serve_bucket, web
from tests.tasks.data.test_sources import below

__all__ = ["web"]  # a fixture

CHIPS = {
    f"v1.1/data/flood_events/HandLabeled/{folder}/India_1_{folder}.tif": bytes(1000)
    for folder in ("S1Hand", "S2Hand", "LabelHand")
}
LISTS = {"v1.1/splits/flood_handlabeled/flood_train_data.csv": b"India_1_S1Hand.tif,India_1_LabelHand.tif"}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal; what is written to the descriptor is what is typed."""
    keyboard, screen = os.openpty()
    with os.fdopen(screen) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard
    os.close(keyboard)


def test_a_clean_set_exits_with_0_and_both_reports_are_written(harness, tmp_path):
    code, out, err = harness("data", "check", "demo-cashew", "--out", "reports")
    assert code == 0, err
    assert "demo-cashew: 20/40" in err
    assert "20/8/12 samples (train/val/test); 40 read" in out
    assert "  clean\n" in out
    assert "1 data sets checked, 1 clean" in out
    report = json.loads(Path("reports/demo-cashew_check.json").read_text())
    assert report["complaints"] == []
    assert report["classes"]["train"]["residential"]["images"] > 0
    page = Path("reports/demo-cashew_check.md").read_text()
    assert "| S2:B04 | 04 - Red | dn | float32 |" in page
    assert sorted(path.name for path in Path("reports").iterdir()) == ["demo-cashew_check.json", "demo-cashew_check.md"]


def test_a_set_with_faults_exits_with_1_and_the_next_one_is_checked_too(harness, tmp_path):
    path = roofs(tmp_path / "set", roof=7)
    code, out, _ = harness("data", "check", str(path), "demo-change", "--limit", "2", "-q")
    assert code == 1
    assert out.count("complaint: ") == len(json.loads(Path("checks/roofs_check.json").read_text())["complaints"])
    assert "holds 7; classes are 0, 1" in out
    assert "the first 2 of each split read" in out
    assert "2 data sets checked, 1 clean; complaints about roofs" in out
    assert (Path("checks") / "demo-change_check.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "m-forestnet"), "m-forestnet is not below {root}; `python -m harness data fetch m-forestnet`"),
        (("check", "m-forestnett"), "did you mean 'm-forestnet'?"),
        (("check", "absent.toml"), "no data-set description 'absent.toml'"),
        (("check",), "name the data sets to check; known: "),
        (("fetch",), "name the data sets to fetch; known: "),
        (("check", "demo-change", "--limit", "0"), "--limit 0 is below 1"),
        (("list", "demo-change"), "`data list` takes no names, got demo-change"),
        (("chekc", "demo-change"), "did you mean 'check'?"),
    ],
)
def test_a_mistake_is_one_line_and_exits_with_2(harness, demo_data, arguments, words):
    code, _, err = harness("data", *arguments)
    assert code == 2
    assert words.format(root=demo_data) in err
    assert err.count("\n") == 1
    assert not Path("checks").exists()


def test_a_place_that_cannot_be_written_is_one_line(harness):
    Path("file").touch()
    code, _, err = harness("data", "check", "demo-change", "--limit", "1", "-q", "--out", "file/reports")
    assert code == 2
    assert "harness: cannot write file/reports" in err


def test_the_list_says_what_is_here_and_how_to_get_the_rest(harness, demo_data):
    code, out, _ = harness("data", "list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert set(lines) > set(catalogue.names())
    assert f"here: {demo_data / 'twin' / 'change' / 'demo-pairs'}" in lines["demo-change"]
    size = sum(path.stat().st_size for path in (demo_data / "twin" / "change").rglob("*") if path.is_file())
    assert f"{size / 1e6:.1f} MB" in lines["demo-change"]
    assert lines["m-forestnet"].endswith("missing: python -m harness data fetch m-forestnet")
    assert "332 MB" in lines["uc-merced"]
    assert out.splitlines()[-1] == f"4 data sets here, {len(catalogue.names()) - 4} missing, below {demo_data}"


def test_size_and_target_are_said_and_no_is_an_answer(web: Files, terminal, tmp_path, capsys):
    serve_bucket(web, CHIPS | LISTS)
    card = catalogue.card("sen1floods11")
    os.write(terminal, b"n\n")
    data_verbs.fetch(card, tmp_path, yes=False, quiet=True, endpoint=web.endpoint)
    out = capsys.readouterr().out
    assert f"sen1floods11: 3.0 kB in 4 files from the bucket sen1floods11 to {tmp_path / 'sen1floods11'}\n" in out
    assert "licence: CC BY 4.0" in out
    assert "sen1floods11 was not fetched" in out
    assert below(tmp_path) == []


@pytest.mark.parametrize("yes", [True, False])
def test_what_is_agreed_to_is_fetched_and_is_not_fetched_twice(web: Files, terminal, tmp_path, capsys, yes):
    serve_bucket(web, CHIPS | LISTS)
    card = catalogue.card("sen1floods11")
    if not yes:
        os.write(terminal, b"y\n")
    data_verbs.fetch(card, tmp_path, yes, quiet=True, endpoint=web.endpoint)
    assert below(tmp_path / "sen1floods11") == sorted(CHIPS | LISTS)
    asked = len(web.requests)
    data_verbs.fetch(card, tmp_path, yes=False, quiet=True, endpoint=web.endpoint)
    assert len(web.requests) == asked
    assert capsys.readouterr().out.endswith(f"sen1floods11 is in {tmp_path / 'sen1floods11'}\n")


def test_where_nobody_can_be_asked_a_fetch_wants_yes(web: Files, tmp_path, monkeypatch):
    serve_bucket(web, CHIPS | LISTS)
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(UserError, match="add --yes to fetch"):
            data_verbs.fetch(catalogue.card("sen1floods11"), tmp_path, yes=False, quiet=True, endpoint=web.endpoint)
    assert below(tmp_path) == []


def test_a_demo_set_is_written_without_a_question(harness, tmp_path):
    code, out, err = harness("data", "fetch", "demo-eurosat", "--data-root", tmp_path / "new", "-q")
    assert code == 0, err
    assert out == f"demo-eurosat is in {tmp_path / 'new' / 'twin' / 'classification_v1.0' / 'm-eurosat'}\n"
