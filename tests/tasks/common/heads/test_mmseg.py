"""The stand-in for mmcv's compiled operations: there by name, of no use, and out of the way of introspection."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.common.heads import mmseg

ROOT = Path(__file__).resolve().parents[4]


def test_the_heads_of_mmsegmentation_come_without_a_word_and_leave_the_random_state_alone():
    script = (
        "import json, sys, torch\n"
        "import tasks.common.heads\nearly = 'mmseg' in sys.modules\n"
        "torch.manual_seed(3)\nbefore = torch.random.get_rng_state()\n"
        "from tasks.common.heads.mmseg import decode_heads\n"
        "names = [decode_heads().UPerHead.__name__, decode_heads().FCNHead.__name__]\n"
        "same = torch.equal(before, torch.random.get_rng_state())\n"
        "tasks.common.heads.build('upernet-lite', (4,) * 4, (4, 8, 16, 32), 2, auxiliary=True)\n"
        "print(json.dumps([early, names, same]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (json.loads(done.stdout), done.stderr) == ([False, ["UPerHead", "FCNHead"], True], "")


def test_the_stand_in_is_made_once_and_inspect_can_look_past_it():
    mmseg.decode_heads()
    first = sys.modules[mmseg.EXTENSION]
    mmseg.provide_extension()
    assert sys.modules[mmseg.EXTENSION] is first
    assert first.__spec__ is not None
    assert first.__spec__.name == mmseg.EXTENSION
    assert inspect.getmodule(test_the_heads_of_mmsegmentation_come_without_a_word_and_leave_the_random_state_alone)


def test_an_operation_that_is_called_says_what_is_missing():
    module = mmseg.Operations("mmcv._ext")
    with pytest.raises(RuntimeError, match="'nms' was called, which mmcv-lite does not have"):
        module.nms([1.0], threshold=0.5)
    with pytest.raises(AttributeError, match="__file__"):
        _ = module.__file__


def test_an_extension_that_is_installed_is_left_to_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import mmcv

    mmseg.provide_extension()
    (tmp_path / "_ext.py").write_text("compiled = True\n")
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, mmseg.EXTENSION)
    mmseg.provide_extension()
    assert mmseg.EXTENSION not in sys.modules


def test_a_head_is_built_in_a_process_whose_scope_is_mmengines():
    from mmengine.registry import DefaultScope

    from tasks.common.heads import build

    with DefaultScope.overwrite_default_scope("mmengine"):
        build("upernet-lite", (4, 4, 4, 4), (4, 8, 16, 32), 2)
