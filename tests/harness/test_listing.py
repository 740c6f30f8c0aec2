"""What `list` says is what the cards say."""

import models
from harness import listing, model_table
from tasks.protocols import PROTOCOLS
from tests.support import ROOT


def test_the_page_of_models_is_the_one_generated_from_the_cards():
    written = (ROOT / "models/README.md").read_text()
    remedy = "run `python -m harness list models --markdown > models/README.md`"
    assert written == model_table.markdown().rstrip() + "\n", remedy


def test_every_model_with_weights_has_a_kit_that_proves_it():
    proofs = model_table.parity()
    cards = [models.card(f"{name}:{variant}") for name in models.names() for variant in models.card(name).variants]
    unproven = [card.label for card in cards if card.checkpoint.fetch != "none" and card.label not in proofs]
    # Of X-STARS' ResNet-50 no code is published; SatDiFuser at 512 is the network of 256 with another checkpoint.
    assert unproven == ["satdifuser:512", "xstars:small", "xstars:resnet50", "xstars:vit"]


def test_the_difference_of_a_protocol_with_itself_is_nothing_but_the_heading():
    assert len(listing.differences("clean", "clean")) == 1
    named = {line.split()[0] for line in listing.differences("clean", "deo-paper")[1:]}
    assert {"normalisation", "linear_probe.backbone_mode", "pooled_by_model"} <= named
    assert named <= PROTOCOLS["clean"].flat().keys()


def test_the_transforms_of_every_model_are_compiled_or_refused_with_the_band():
    lines = listing.transforms("m-so2sat", "clean")
    assert sum(line.endswith("on m-so2sat (clean):") for line in lines) >= len(models.names())
    assert any("S2:B04: reflectance -> dn" in line for line in lines)  # DEO wants digital numbers


def test_a_data_set_is_listed_with_its_splits():
    assert any(line.startswith("m-eurosat ") and "2000/1000/1000" in line for line in listing.dataset_lines())


def test_suites_name_the_metric_that_stands_for_every_task():
    lines = listing.suite_lines()
    deo = lines[next(number for number, line in enumerate(lines) if line.startswith("deo:")) :][:14]
    metrics = {line.split()[0]: line.split("(")[1].rstrip(")") for line in deo[1:]}
    assert len(metrics) == 13
    assert metrics["sen1floods11"] == "iou_micro_native"
    assert metrics["pastis"] == "miou_macro_all_native"
    assert (metrics["oscd"], metrics["m-bigearthnet"], metrics["m-eurosat"]) == ("f1_change", "f1_micro", "accuracy")
