"""Splits drawn by a hash of the name: they hang on nothing else, and the stored list is what the rule gives."""

import csv
import hashlib

from tasks.data.drawn import SEED, drawn, share, stratified
from tasks.data.uc_merced import LIST
from tasks.data.xstars_cards import UC_MERCED


def test_the_share_is_the_head_of_a_sha256():
    digest = hashlib.sha256(f"{SEED}:river/7.jpg".encode()).digest()
    assert share("river/7.jpg") == int.from_bytes(digest[:4], "big") / 2**32


def test_shares_of_many_names_fill_the_splits_in_proportion():
    found = [drawn(f"image{number}") for number in range(20000)]
    assert abs(found.count("test") / 20000 - 0.2) < 0.01
    assert abs(found.count("val") / 20000 - 0.2) < 0.01


def test_a_name_keeps_its_split_whatever_else_is_there():
    assert drawn("school/12.jpg", 0.2, 0.2) == drawn("school/12.jpg")
    assert share("a") != share("b")
    assert drawn("anything", test=1.0) == "test"
    assert drawn("anything", test=0.0, val=1.0) == "val"
    assert drawn("anything", test=0.0, val=0.0) == "train"


def test_exact_numbers_are_drawn_in_any_order_of_the_names():
    names = [f"harbor{number:02}" for number in range(100)]
    parts = stratified(names, 20, 20)
    assert [len(parts[split]) for split in ("train", "val", "test")] == [60, 20, 20]
    assert set().union(*parts.values()) == set(names)
    assert stratified(reversed(names), 20, 20) == parts


def test_the_stored_list_of_uc_merced_is_what_the_rule_gives():
    rows = list(csv.DictReader(LIST.read_text().splitlines()))
    stored = {row["name"]: row["split"] for row in rows}
    assert len(rows) == len(stored) == 2100
    for label in UC_MERCED:
        for split, names in stratified([f"{label}{number:02}" for number in range(100)], 20, 20).items():
            assert {stored[name] for name in names} == {split}
