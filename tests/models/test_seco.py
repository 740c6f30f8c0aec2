"""SeCo: the query encoder of a Lightning checkpoint whose classes need not be installed, and what is refused."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import resnet18, resnet50, resnet101

import models
from harness import verify
from models import seco
from models.common.backbone import Batch, state_shapes
from models.common.errors import UserError

CARD = models.card("seco")
SLIM = Path(__file__).resolve().parents[1] / "parity" / "seco"
INDICES = {"conv1.": "0.", "bn1.": "1.", "layer1.": "4.", "layer2.": "5.", "layer3.": "6.", "layer4.": "7."}


def official_names(resnet: nn.Module) -> dict[str, Tensor]:
    """torchvision's entries under the names that a Sequential of its children has, the classifier left out."""
    names: dict[str, Tensor] = {}
    for key, value in resnet.state_dict().items():
        first = next((name for name in INDICES if key.startswith(name)), None)
        if first:
            names[INDICES[first] + key.removeprefix(first)] = value
    return names


def seen(make: Callable[[], nn.Module]) -> nn.Module:
    """A ResNet with running statistics that a wrong file or a wrong epsilon would betray."""
    torch.manual_seed(0)
    model = make().eval()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model


def test_a_lightning_checkpoint_gives_the_features_of_torchvisions_resnet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both encoders, heads and queue are in the file, and callbacks of a class that is not installed."""
    resnet, momentum = seen(resnet50), resnet50()
    state = {f"encoder_k.{key}": value for key, value in official_names(momentum).items()}
    state |= {f"encoder_q.{key}": value for key, value in official_names(resnet).items()}
    state |= {"heads_q.0.0.weight": torch.zeros(4, 4), "heads_k.2.2.bias": torch.zeros(4)}
    state |= {"queue": torch.zeros(3, 8, 4), "queue_ptr": torch.zeros(3, 1, dtype=torch.int64)}
    module = types.ModuleType("pytorch_lightning_of_elsewhere")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    monkeypatch.setattr(module, "ModelCheckpoint", callback, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    content = {"state_dict": state, "epoch": 199, "callbacks": {callback: {"best": 1.0}}, "hyper_parameters": {}}
    torch.save(content, tmp_path / "seco_resnet50_1m.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)
    model = models.build("seco", str(tmp_path / "seco_resnet50_1m.ckpt"))
    image = torch.randn(2, 3, 45, 64, generator=torch.Generator().manual_seed(1))
    features = model(Batch({"optical": image}, "rgb"))
    with torch.no_grad():
        theirs = nn.Sequential(*list(resnet.children())[:-1])(image).flatten(1)
    torch.testing.assert_close(features.pooled, theirs, rtol=1e-5, atol=1e-5)
    assert [tuple(stage.shape[1:]) for stage in features.stages] == [
        (256, 12, 16),
        (512, 6, 8),
        (1024, 3, 4),
        (2048, 2, 2),
    ]


REFUSED = {
    "the ResNet-18": (lambda: prefixed(resnet18), r"plain blocks \(2, 2, 2, 2\)"),
    "a ResNet-101": (lambda: prefixed(resnet101), r"\(3, 4, 23, 3\) bottleneck blocks; seco has \(3, 4, 6, 3\)"),
    "torchvision's own file": (lambda: state_shapes(on_meta(resnet50).state_dict()), "it looks like a plain ResNet"),
    "a ViT": (lambda: {"patch_embed.proj.weight": (768, 3, 16, 16)}, "it looks like another ViT"),
}


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def prefixed(make: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    return {f"encoder_q.{key}": tuple(value.shape) for key, value in official_names(on_meta(make)).items()}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    shapes, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        seco.build(CARD, shapes())


def test_another_epsilon_of_the_batch_norms_does_not_pass(tmp_path: Path):
    assert verify.run_kit(SLIM).passed
    adapter = tmp_path / "broken.py"
    adapter.write_text(
        "from models.seco import CARD, build as official\n"
        "from torch import nn\n"
        "def build(card, shapes):\n"
        "    model = official(card, shapes)\n"
        "    for module in model.modules():\n"
        "        if isinstance(module, nn.BatchNorm2d):\n"
        "            module.eps = 1e-3\n"
        "    return model\n"
    )
    outcome = verify.run_kit(SLIM, str(adapter))
    assert outcome.error > 10 * outcome.limit
