"""Protocols: every switch has a name, can be set, and is part of a run's identity where it can change the numbers."""

import pytest

from models.common.errors import UserError
from tasks.protocols import PROTOCOLS

CLEAN, DEO, XSTARS = PROTOCOLS["clean"], PROTOCOLS["deo-paper"], PROTOCOLS["xstars-paper"]


def test_a_switch_is_set_by_the_name_it_is_printed_under():
    changed = CLEAN.with_switches(
        ["knn.distance=euclidean", "knn.k=5,10", "input_size=96", "linear_probe.logistic=false"]
    )
    assert changed.knn.distance == "euclidean"
    assert changed.knn.k == (5, 10)
    assert changed.input_size == 96
    assert changed.linear_probe.logistic is False
    assert CLEAN.knn.distance == "cosine"


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_switch_but_the_tables_can_be_set_to_what_it_is(name: str):
    protocol = PROTOCOLS[name]
    for switch, value in protocol.flat().items():
        if isinstance(value, dict):
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        assert protocol.with_switches([f"{switch}={text}"]).flat()[switch] == value


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("knn.distanc=cosine", "did you mean 'knn.distance'"),
        ("knn.distance=cosin", "did you mean 'cosine'"),
        ("knn.k=five", "knn.k=five"),
        ("linear_probe.epochs=0", "epochs must be 1 or more"),
        ("linear_probe.logistic=maybe", "logistic=maybe"),
        ("linear_probe.learning_rate_by_dataset=1", "cannot be set on the command line"),
        ("normalisation=none", "Known: model, dataset"),
        ("input_size=0", "below 1 pixel"),
        ("seeds=1,1", "each once"),
        ("knn.k", "no SWITCH=VALUE"),
    ],
)
def test_a_wrong_switch_or_value_is_refused_with_a_sentence(assignment: str, words: str):
    with pytest.raises(UserError, match=words):
        CLEAN.with_switches([assignment])


def test_switches_that_only_fit_together_can_be_set_together():
    changed = CLEAN.with_switches(["linear_probe.epochs=2", "linear_probe.warmup_epochs=1"])
    assert (changed.linear_probe.epochs, changed.linear_probe.warmup_epochs) == (2, 1)
    with pytest.raises(UserError, match="warm-up epochs"):
        CLEAN.with_switches(["linear_probe.epochs=2"])


def test_a_task_is_identified_by_its_own_switches_and_the_shared_ones_alone():
    changed = CLEAN.with_switches(["linear_probe.epochs=7"])
    assert changed.switches("knn", "m-eurosat", "deo") == CLEAN.switches("knn", "m-eurosat", "deo")
    assert changed.switches("linear_probe", "m-eurosat", "deo") != CLEAN.switches("linear_probe", "m-eurosat", "deo")
    shared = CLEAN.with_switches(["normalisation=dataset"])
    assert shared.switches("knn", "m-eurosat", "deo") != CLEAN.switches("knn", "m-eurosat", "deo")


def test_k_nn_has_no_seed_and_probes_have_those_of_the_protocol():
    assert CLEAN.seeds_of("knn") == (None,)
    assert CLEAN.seeds_of("linear_probe") == (0, 1, 2, 3, 4)


def test_deo_paper_is_what_its_authors_ran():
    probe = DEO.linear_probe
    assert (DEO.normalisation, DEO.input_size, DEO.pooled_of("deo"), DEO.pooled_of("dinov2")) == (
        *("dataset", "native", "raw", "default"),
    )
    assert (probe.optimizer, probe.epochs, probe.warmup_epochs, probe.batch) == ("adamw", 50, 5, 64)
    assert (probe.weight_decay, probe.minimum_learning_rate, probe.backbone_mode) == (0.01, 1e-6, "train")
    assert probe.for_dataset("m-eurosat").learning_rates == (1e-2,)
    assert probe.for_dataset("m-so2sat").learning_rates == (1e-3,)
    assert probe.for_dataset("m-bigearthnet").augmentation == "flips_rotation"
    assert not probe.uses_stored_features


def test_xstars_paper_sees_rgb_at_224_and_averages_six_k():
    probe = XSTARS.linear_probe
    assert (XSTARS.bands, XSTARS.input_size, XSTARS.knn.k) == ("rgb", 224, (5, 10, 20, 50, 100, 200))
    assert (probe.optimizer, probe.learning_rates, probe.epochs, probe.batch) == ("sgd", (1e-2,), 100, 32)
    assert probe.uses_stored_features


def test_a_learning_rate_that_is_set_overrides_the_table_per_data_set():
    changed = DEO.with_switches(["linear_probe.learning_rates=0.5", "linear_probe.augmentation=none", "pooled=mean"])
    assert changed.linear_probe.for_dataset("m-eurosat").learning_rates == (0.5,)
    assert changed.linear_probe.for_dataset("m-bigearthnet").augmentation == "none"
    assert changed.pooled_of("deo") == "mean"
