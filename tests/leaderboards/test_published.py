"""The published numbers: the very files, nothing lost in the grids, and what follows from DEO's own tables."""

import runpy
from pathlib import Path

import pytest

from leaderboards import published
from leaderboards.files import JournalError


@pytest.mark.parametrize("paper", published.PAPERS)
def test_numbers_and_provenance_are_those_of_the_shared_folder(shared: Path, paper: str):
    theirs = sorted((shared / "published").glob(f"{paper}_*.csv"))
    assert [path.name for path in theirs] == [path.name for path in sorted(published.FOLDER.glob(f"{paper}_*.csv"))]
    for path in theirs:
        assert (published.FOLDER / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("paper", published.PAPERS)
def test_every_number_has_one_place_in_the_grids(paper: str):
    numbers = published.read(paper)
    for table in dict.fromkeys(number.table for number in numbers):
        placed = [number for grid in published.grids(numbers, table) for number in grid.cells.values()]
        assert sorted(placed) == sorted(number for number in numbers if number.table == table)


def test_knn_and_linear_probing_of_table_1_are_separate_grids():
    knn, linear, segmentation = published.grids(published.read("xstars"), "I")
    assert knn.columns == linear.columns == ["EuroSAT", "Worldstrat", "UC-Merced", "CV-BrCT"]
    assert knn.cells["Scale-MAE [ViT-L, fMoW]", "EuroSAT"].value == "92.9"
    assert linear.cells["Scale-MAE [ViT-L, fMoW]", "EuroSAT"].value == "93.9"
    assert len(knn.lines) == len(segmentation.lines) == 13


def test_recomputed_ranks_are_those_of_the_published_check(shared: Path, capsys: pytest.CaptureFixture[str]):
    """`check_ranks.py` ranks by counting who is better; ours by scipy."""
    theirs = runpy.run_path(str(shared / "published" / "check_ranks.py"))
    capsys.readouterr()
    ours = published.average_ranks(published.read("deo"))
    assert len(ours) == 10
    for model, groups in ours.items():
        optical, ms = theirs["mean"](theirs["OPT"], model), theirs["mean"](theirs["MS"], model)
        assert groups == pytest.approx({"optical": optical, "MS": ms, "overall": (optical + ms) / 2})


def test_the_optical_data_sets_are_the_five_on_which_all_models_see_rgb():
    optical = {"SpaceNetv1", "m-nz-cattle", "m-pv4ger-seg", "m-chesapeake-landcover", "LEVIR-CD"}
    assert published.optical(published.read("deo")) == optical


def test_the_contradictions_of_deo_are_found():
    found = published.contradictions(published.read("deo"))
    assert [line for line in found if "sum to 45.0" in line and "sum to 55" in line and "optical" in line]
    assert [line for line in found if "sum to 49.0" in line and "sum to 55" in line and "MS" in line]
    averages = [line for line in found if "is printed as" in line]
    assert [line.partition(":")[0] for line in averages] == [
        "table 3, DINOv3-B",
        "table 3, SatDiFuser",
        "table 3, CROMA",
    ]
    assert averages[0].endswith("is printed as 67.91, its 3 cells give 67.24")


def test_consistent_tables_have_no_contradictions():
    """Ranks and averages replaced by those that follow from the cells: nothing is left to say."""
    numbers = published.read("deo")
    means = published.average_ranks(numbers)
    mended = []
    for number in numbers:
        if number.metric.startswith("average rank: "):
            number = number._replace(value=str(means[number.model][number.metric.removeprefix("average rank: ")]))
        if number.dataset == "Classification avg":
            cells = [
                float(n.value) for n in numbers if n.table == "3" and n.model == number.model and n.suite != "aggregate"
            ]
            number = number._replace(value=f"{sum(cells) / 3:.2f}")
        mended.append(number)
    assert published.contradictions(mended) == []


def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path):
    with pytest.raises(JournalError, match="no published numbers of 'deo'"):
        published.read("deo", tmp_path)
    (tmp_path / "deo_x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(JournalError, match="other columns"):
        published.read("deo", tmp_path)
    (tmp_path / "deo_x.csv").write_text(",".join(published.Number._fields) + "\nDEO,1\n")
    with pytest.raises(JournalError, match="line 2: 2 columns"):
        published.read("deo", tmp_path)
