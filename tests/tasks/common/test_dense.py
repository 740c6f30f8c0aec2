"""Training heads per pixel: what is frozen stays, what is tuned moves, and val alone decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import models
from models.common.errors import UserError
from models.common.weights import module_digest
from tasks import segmentation
from tasks.common import dense
from tasks.switches import ChangeDetection, Segmentation
from tests.tasks.dense_toy import lakes, scenes, silent, tiny

QUICK = Segmentation(
    head="linear", learning_rates=(1e-2,), epochs=4, warmup_epochs=0, batch=4, dropout=0.0, stage_store="fp16"
)


def evaluated(switches, data=None, backbone=None, seed=0, store=None, train=None):
    data = data or lakes()
    toy = scenes(data, switches, backbone, store=store)
    splits = (train or data.splits["train"], data.splits["val"], data.splits["test"])
    return segmentation.evaluate(toy, *splits, seed, switches, report=silent), toy


@pytest.mark.parametrize("head", ["linear", "upernet-lite", "unet"])
def test_every_head_learns_what_brightness_tells(head):
    result, _ = evaluated(replace(QUICK, head=head, epochs=20))
    assert result.metrics["miou_macro_present_native"] > 0.75
    assert result.facts["head"] == head


def test_a_frozen_backbone_keeps_its_digest_and_a_fine_tuned_one_does_not():
    backbone = tiny()
    before = module_digest(backbone)
    frozen, _ = evaluated(QUICK, backbone=backbone)
    tuned, _ = evaluated(replace(QUICK, backbone="finetuned"), backbone=backbone)
    assert frozen.facts["backbone_before"] == frozen.facts["backbone_after"] == before == module_digest(backbone)
    assert tuned.facts["backbone_before"] == before
    assert tuned.facts["backbone_after"] != before
    assert (frozen.facts["backbone_parameters_trained"], tuned.facts["backbone_parameters_trained"] > 0) == (0, True)


def test_only_parameters_that_the_stages_depend_on_are_tuned():
    backbone = tiny()
    tuned, _ = evaluated(replace(QUICK, backbone="finetuned"), backbone=backbone)
    reached = sum(parameter.numel() for name, parameter in backbone.named_parameters() if "unused" not in name)
    assert tuned.facts["backbone_parameters_trained"] == reached


def test_a_model_without_parameters_has_nothing_to_tune_and_the_row_says_so():
    tuned, _ = evaluated(replace(QUICK, backbone="finetuned"))
    assert any("no parameters that could be fine-tuned" in note for note in tuned.notes)
    assert tuned.facts["backbone_parameters_trained"] == 0


def test_training_is_the_same_for_a_seed_and_another_for_another():
    first, again, other = (
        evaluated(replace(QUICK, head="upernet-lite", epochs=12), seed=seed)[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(first.samples["confusion"], again.samples["confusion"])
    assert not np.array_equal(first.samples["confusion"], other.samples["confusion"])


def test_stored_and_unstored_training_agree_within_the_stored_precision(tmp_path):
    stored, toy = evaluated(QUICK, backbone=tiny(), store=tmp_path)
    direct, _ = evaluated(replace(QUICK, stage_store="none"), backbone=tiny())
    assert toy.maps.error.maximum < 1e-3
    labelled = stored.samples["confusion"].sum()
    moved = np.abs(stored.samples["confusion"].astype(int) - direct.samples["confusion"].astype(int)).sum()
    assert moved <= 0.02 * labelled


def test_micro_batches_sum_to_the_whole_batch_where_no_statistics_are_shared():
    def gradients(switches):
        data, backbone = lakes(), tiny()
        switches = replace(switches, epochs=1, learning_rates=(1.0,), optimizer="sgd", momentum=0.0, weight_decay=0.0)
        switches = replace(switches, minimum_learning_rate=0.0, selection="last", batch=8)
        toy = scenes(data, switches, backbone)
        trained = dense.train(
            *(toy, data.splits["train"], ()),
            outputs=2,
            loss=segmentation.LOSSES["cross_entropy"],
            decide=segmentation.most_likely,
            score=lambda counts: 0.0,
            seed=0,
            switches=switches,
            report=silent,
        )
        return trained.decoder.head.decoder.state_dict()

    # Batch norm sees the parts: its statistics differ, so that only the direction of the step is alike.
    whole, parts = gradients(QUICK), gradients(replace(QUICK, micro_batch=4))
    key = next(name for name in whole if name.endswith("weight") and whole[name].ndim == 4)
    similarity = torch.nn.functional.cosine_similarity(whole[key].flatten(), parts[key].flatten(), dim=0)
    assert similarity > 0.95
    assert not torch.equal(whole[key], parts[key])


def test_of_several_learning_rates_val_picks_one_and_a_note_says_if_it_is_an_edge():
    result, _ = evaluated(replace(QUICK, learning_rates=(1e-6, 1e-2), minimum_learning_rate=0.0, epochs=8))
    assert result.choices["learning_rate"] == 1e-2
    assert 1 <= result.choices["epoch"] <= 8
    assert any("largest of those tried" in note for note in result.notes)


def test_a_set_without_a_validation_split_needs_a_protocol_that_chooses_nothing():
    data = lakes()
    data.splits = data.splits | {"val": ()}
    with pytest.raises(UserError, match=r"no validation split .* selection=last"):
        evaluated(QUICK, data)
    result, _ = evaluated(replace(QUICK, selection="last"), data)
    assert "validation" not in result.choices
    assert result.choices["epoch"] == 4


def test_training_ends_when_patience_does():
    epochs = []
    data = lakes()
    switches = replace(QUICK, learning_rates=(1e-9,), minimum_learning_rate=0.0, epochs=30, patience=3)
    toy = scenes(data, switches, tiny())
    splits = (data.splits["train"], data.splits["val"], data.splits["test"])
    segmentation.evaluate(toy, *splits, 0, switches, report=lambda what, done, total: epochs.append(done))
    assert len(epochs) < 30


def test_one_training_image_is_refused_by_a_head_that_pools_to_a_pixel():
    with pytest.raises(UserError, match="batch of one image"):
        evaluated(replace(QUICK, head="upernet-lite"), train=["image00"])


def test_diverging_rates_are_refused_with_what_was_tried():
    with pytest.raises(UserError, match="every learning rate diverged"):
        evaluated(replace(QUICK, learning_rates=(1e30,), optimizer="sgd"))


def test_stochastic_depth_is_on_in_training_and_the_frozen_backbone_stays_as_it_was():
    backbone = tiny(dropout=0.5)
    before = module_digest(backbone)
    longer = replace(QUICK, learning_rates=(5e-2,), epochs=20)
    on, _ = evaluated(replace(longer, backbone_mode="train"), backbone=backbone)
    off, _ = evaluated(longer, backbone=backbone)
    assert module_digest(backbone) == before
    assert not backbone.training
    assert not np.array_equal(on.samples["confusion"], off.samples["confusion"])


def test_a_plain_vit_gets_a_unet_where_a_hierarchical_backbone_gets_a_upernet():
    switches = ChangeDetection()
    assert dense.head_kind(switches, tiny()) == "upernet"
    assert dense.head_kind(switches, models.build("xstars:tiny", weights="random")) == "unet"
