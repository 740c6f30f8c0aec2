from dataclasses import replace

import pytest

from leaderboards.labels import labels, short_weights
from leaderboards.results import Identity


def labelled(*identities: Identity, given: str = "") -> list[str]:
    return labels(identities, [given] * len(identities))


def switched(identity: Identity, **switches: object) -> Identity:
    return replace(
        identity, switches={**identity.switches, **{name.replace("__", "."): value for name, value in switches.items()}}
    )


@pytest.mark.parametrize(
    ("weights", "short"), [("random-0", "random"), ("none", "none"), ("0123456789abcdef" * 4, "01234567")]
)
def test_weights_are_written_short(weights: str, short: str) -> None:
    assert short_weights(weights) == short


def test_rows_that_the_columns_tell_apart_carry_the_given_label_only(identity: Identity) -> None:
    others = [
        replace(identity, model="dinov2"),
        replace(identity, variant="vit"),
        replace(identity, weights="f" * 64),
        replace(identity, dataset="m-so2sat", dataset_version="v7", mode="rgb"),
        replace(identity, task="knn", switches={"knn.distance": "euclidean"}),
        replace(identity, protocol="deo-paper", switches={}),
        replace(identity, train_fraction="0.10x", split_digest="s2"),
    ]
    assert labelled(identity, *others) == [""] * 8
    assert labelled(identity, *others, given="mine") == ["mine"] * 8


def test_limited_runs_say_so(identity: Identity) -> None:
    assert labelled(identity, replace(identity, limit=8), given="mine") == ["mine", "mine [limit 8]"]
    assert labelled(replace(identity, limit=16)) == ["[limit 16]"]


def test_an_overridden_switch_is_named_and_the_usual_row_is_left_alone(identity: Identity) -> None:
    other_model = replace(identity, model="dinov2")
    changed = switched(identity, linear_probe__standardise="none")
    assert labelled(identity, other_model, changed) == ["", "", "linear_probe.standardise=none"]
    assert labelled(changed, other_model, identity) == ["linear_probe.standardise=none", "", ""]


def test_numbers_lists_and_several_switches_are_named_too(identity: Identity) -> None:
    changed = switched(identity, linear_probe__batch=32, linear_probe__rates=[0.1, 1])
    usual = switched(identity, linear_probe__rates=[0.1])
    assert (
        labelled(usual, replace(usual, model="dinov2"), changed)[2]
        == "linear_probe.batch=32 linear_probe.rates=[0.1,1]"
    )


def test_an_ablation_on_one_data_set_is_named_wherever_it_was_run(identity: Identity) -> None:
    """Else the ranks would take the ablation for the model's ordinary row on the other data set."""
    there = replace(identity, dataset="m-so2sat", dataset_version="v2")
    elsewhere = replace(identity, dataset="m-bigearthnet", dataset_version="v3")
    rows = [identity, there, *(replace(one, model="dinov2") for one in (identity, there, elsewhere))]
    ablation = [switched(one, linear_probe__standardise="none") for one in (identity, elsewhere)]
    words = "linear_probe.standardise=none"
    assert labelled(*rows, *ablation) == ["", "", "", "", "", words, words]


def test_a_switch_that_the_program_did_not_have_yet_is_unset(identity: Identity) -> None:
    newer = [replace(switched(identity, linear_probe__fresh=True), model=name) for name in ("deo", "dinov2")]
    assert labelled(*newer, identity) == ["", "", "linear_probe.fresh=unset"]
    in_another_task = replace(identity, task="knn", switches={"knn.k": [5]})
    assert labelled(*newer, identity, in_another_task)[3] == ""


def test_the_newest_card_revision_is_the_usual_one(identity: Identity) -> None:
    tenth, ninth = replace(identity, card_revision=10), replace(identity, card_revision=9)
    elsewhere = replace(ninth, dataset="m-so2sat")
    assert labelled(ninth, tenth, elsewhere) == ["card_revision=9", "", "card_revision=9"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "01234567" + "f" * 56}, "weights=01234567" + "f" * 56),
        ({"mode": "rgb"}, "mode=rgb"),
        ({"dataset_version": "v2"}, "dataset_version=v2"),
        ({"split_digest": "s2"}, "split_digest=s2"),
        ({"precision": "tf32"}, "precision=tf32"),
    ],
)
def test_what_has_no_column_is_named(change: dict[str, object], words: str, identity: Identity) -> None:
    assert labelled(identity, replace(identity, **change)) == ["", words]


def test_two_random_networks_are_told_apart(identity: Identity) -> None:
    first, second = replace(identity, weights="random-0"), replace(identity, weights="random-1")
    assert labelled(second, first) == ["weights=random-1", ""]


def test_the_words_never_depend_on_the_order_of_the_rows(identity: Identity) -> None:
    rows = [switched(identity, linear_probe__batch=batch) for batch in (16, 32, 64, 128)]
    forward, backward = labelled(*rows), labelled(*rows[::-1])
    assert forward == backward[::-1]
    assert len(set(forward)) == 4
