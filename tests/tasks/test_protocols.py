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


def test_deo_paper_segments_as_its_first_author_did():
    switches = DEO.segmentation
    assert (switches.head, switches.auxiliary, switches.dropout, switches.pyramid_align_corners) == (
        *("upernet", False, 0.0, True),
    )
    assert (switches.epochs, switches.warmup_epochs, switches.batch, switches.micro_batch) == (50, 5, 64, 16)
    assert (switches.backbone, switches.backbone_mode, switches.input_size, switches.tile) == (
        *("frozen", "train", "native", 0),
    )
    assert switches.on("m-pv4ger-seg", "deo").learning_rates == (1e-4,)
    assert switches.on("pastis", "deo").learning_rates == (1e-2,)
    assert switches.on("m-cashew-plantation", "deo").loss == "bce"
    floods = switches.on("sen1floods11", "deo")
    assert (floods.loss, floods.primary(False)) == ("cross_entropy", "iou_micro_native")
    assert switches.on("m-nz-cattle", "deo").primary(False) == "miou_macro_all_native"
    assert switches.on("spacenet1", "deo").input_size == 224
    assert not switches.uses_stored_features


def test_btc_is_what_was_released_and_deo_paper_differs_in_batch_epochs_and_size():
    btc, deo = PROTOCOLS["btc"].change_detection, DEO.change_detection
    assert (btc.difference, btc.loss, btc.backbone, btc.selection, btc.head) == (
        *("signed", "dice", "finetuned", "last", "auto"),
    )
    assert (btc.learning_rates, btc.weight_decay, btc.backbone_learning_rate, btc.backbone_weight_decay) == (
        *((1e-4,), 1e-4, 1e-4, 5e-4),
    )
    assert (btc.vit_learning_rate, btc.vit_weight_decay, btc.minimum_learning_rate) == (6e-5, 0.05, 1e-7)
    assert (btc.epochs, btc.batch, btc.input_size) == (100, 32, 256)
    assert (deo.epochs, deo.batch, deo.input_size, deo.vit_base_blocks) == (50, 64, "native", (3, 5, 7, 11))
    assert PROTOCOLS["btc"].own_validation == "no"
    assert PROTOCOLS["btc"].seeds_of("change_detection") == (42, 1337, 564738)


def test_xstars_paper_trains_a_upernet_with_patience_and_a_unet_on_its_resnet():
    switches = XSTARS.segmentation
    assert (switches.epochs, switches.patience, switches.batch, switches.learning_rates) == (100, 25, 32, (1e-2,))
    assert switches.on("flair", "xstars").head == "upernet"
    assert switches.on("flair", "xstars:resnet50").head == "unet"


def test_dense_tasks_have_sizes_seeds_and_switches_of_their_own():
    assert CLEAN.sizes("segmentation", "m-nz-cattle", "deo") == ("native", "resize")
    assert CLEAN.sizes("linear_probe", "m-eurosat", "deo") == ("model", "resize")
    assert CLEAN.seeds_of("segmentation") == (0, 1, 2)
    changed = CLEAN.with_switches(["change_detection.difference=absolute", "segmentation.vit_base_blocks=2,5,8,11"])
    assert changed.switches("segmentation", "pastis", "deo")["segmentation.vit_base_blocks"] == [2, 5, 8, 11]
    assert changed.switches("change_detection", "oscd", "deo")["change_detection.difference"] == "absolute"
    assert changed.switches("knn", "m-eurosat", "deo") == CLEAN.switches("knn", "m-eurosat", "deo")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("segmentation.head=upernett", "did you mean 'upernet'"),
        ("segmentation.loss=dice", "Known: cross_entropy, bce"),
        ("change_detection.loss=dices", "did you mean 'dice'"),
        ("segmentation.vit_base_blocks=3,5,8", "four block numbers within 0..11"),
        ("segmentation.tile_stride=600", "between 1 and tile = 512"),
        ("segmentation.crop_scale=0.9,0.5", "0 < low <= high"),
        ("change_detection.difference=squared", "Known: signed, absolute"),
        ("segmentation.patience=-1", "patience must be 0"),
        ("segmentation.input_size=0", "below 1 pixel"),
        ("own_validation=maybe", "Known: yes, no"),
    ],
)
def test_wrong_values_of_dense_switches_are_refused_with_a_sentence(assignment: str, words: str):
    with pytest.raises(UserError, match=words):
        CLEAN.with_switches([assignment])
