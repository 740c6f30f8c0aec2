"""DEO's switches: the ladder of Table 6, the two forms, and what is refused."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from models.common.errors import UserError
from models.pretraining.deo_recipe import PRESETS, SCALES, recipe, switches

ROOT = Path(__file__).resolve().parents[3]


def test_every_row_of_the_ladder_adds_one_thing_to_the_row_before():
    assert list(PRESETS) == ["base-ms", "cls-shared", "separate", "patch", "rgb-aug", "full"]
    rows = [dict(switches(recipe(name))) for name in PRESETS]
    changed = [{key for key in after if after[key] != before[key]} - {"name"} for before, after in pairwise(rows)]
    assert changed == [{"distill", "teacher"}, {"optical_path"}, {"distill"}, {"rgb_aug"}, {"hr_rgb"}]
    assert (rows[0]["distill"], rows[0]["teacher"], rows[0]["rgb_aug"], rows[0]["hr_rgb"]) == (
        "none",
        "none",
        False,
        False,
    )
    assert (rows[5]["distill"], rows[5]["optical_path"], rows[5]["hr_rgb"]) == ("cls+patch", "separate", True)


def test_paper_and_release_differ_where_they_do():
    paper, released = recipe("full", "paper", "main"), recipe("full", "released", "main")
    ours, theirs = switches(paper), switches(released)
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]} == {
        "window": (12, 7),
        "patch": (8, 16),
        "teacher_drop_path": (False, True),
        "ms_branch_rgb": ("plain", "augmented"),
        "vit_patches": ("straight", "crossed"),
        "eps": (0.5, 0.05),
        "groups": (16, 4),
        "cls_weight": (1.0, 0.5),
        "late_weight": (0.5, 0.25),
        "mid_weight": (0.5, 0.25),
        "batch": (128, 256),
    }
    assert (paper.separate_rgb, released.separate_rgb) == (True, False)


def test_the_paper_trains_swin_b_for_100_epochs_and_swin_t_for_the_ablation():
    main, ablation = recipe(scale="main"), recipe(scale="ablation")
    assert (main.student, main.epochs, main.drop_path, main.swin.depths) == ("swin_b", 100, 0.5, (2, 2, 18, 2))
    assert (ablation.student, ablation.epochs, ablation.drop_path) == ("swin_t", 50, 0.2)
    assert (main.learning_rate, main.weight_decay, main.ema, main.clip) == (5e-4, (0.04, 0.4), (0.996, 1.0), 3.0)


def test_the_release_halves_the_class_term_only_beside_patches():
    assert recipe("separate", "released").cls_weight == 1.0
    assert recipe("patch", "released").cls_weight == 0.5
    assert recipe("separate", "released", cls_weight=0.3).cls_weight == 0.3


def test_no_teacher_always_works_and_is_row_0_of_the_losses():
    for name in PRESETS:
        made = recipe(name, teacher="none")
        assert (made.distill, made.teacher) == ("none", "none")


def test_a_vit_has_drop_path_in_the_student_alone_unless_asked():
    made = recipe("full", "released", student="vit_b")
    assert (made.drop_path, made.teacher_drop_path, made.patch) == (0.1, False, 16)
    assert recipe("full", "released", student="vit_b", teacher_drop_path=True, drop_path=0.0).teacher_drop_path


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("form", ["paper", "released"])
def test_batch_and_groups_of_every_scale_go_together(scale: str, form: str):
    made = recipe("full", form, scale)
    assert made.batch % made.groups == 0


REFUSED = {
    "an unknown preset": ({"preset": "fulll"}, "no preset of deo 'fulll', did you mean 'full'"),
    "an unknown form": ({"form": "papers"}, "did you mean 'paper'"),
    "an unknown switch": ({"groupes": 2}, "deo has no switch 'groupes', did you mean 'groups'"),
    "an unknown value": ({"distill": "patch"}, "no value of distill 'patch'"),
    "a teacher for nothing": ({"preset": "base-ms", "teacher": "dinov3"}, "no use for the teacher dinov3"),
    "distillation from none": ({"distill": "cls", "teacher": "none"}, "needs an optical teacher"),
    "groups of an all-reduced covariance": ({"covariance": "all_reduced"}, "groups must be 1, got 16"),
    "a probability above 1": ({"blur": (1.0, 1.5, 0.5)}, r"blur\[1\] must be in 0..1, got 1.5"),
    "a crop larger than the image": ({"global_scale": (0.4, 1.2)}, "global_scale must be two rising shares"),
    "a size that patches do not divide": ({"student": "vit_b", "global_size": 220}, "multiple of 8 pixels, got 220"),
    "a view smaller than the blur": ({"local_size": 8}, "8 pixels is too small for a blur_kernel of 23"),
    "heads that do not divide": ({"student": "swin", "heads": (3, 3, 3, 3)}, "32 wide, which 3 heads do not divide"),
    "one view": ({"global_views": 1, "local_views": 0}, "two views at least"),
    "no noise": ({"eps": 0.0}, "eps must be above 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(what: str):
    arguments, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        recipe(**arguments)


def test_a_recipe_changed_by_hand_is_checked_too():
    with pytest.raises(UserError, match="no value of student"):
        replace(recipe(), student="swin_s")


def test_recipes_import_without_torch():
    script = "import sys, models.pretraining.deo_recipe as r; r.recipe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
