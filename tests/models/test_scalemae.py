"""Scale-MAE: the official file, and the relative scale that its positions follow."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import models
from harness import verify
from models import scalemae
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import Band
from models.common.weights import parameters_on_meta
from models.networks.vit import PlainViT

SLIM = Path(__file__).resolve().parents[1] / "parity"


def build(shapes: dict[str, tuple[int, ...]]) -> Backbone:
    with parameters_on_meta():
        return scalemae.build(models.card("scalemae"), shapes)


@pytest.fixture(scope="module")
def model() -> Backbone:
    return models.build("scalemae", "random")


def test_the_official_file_is_read_with_its_decoder_left_out(tmp_path: Path):
    encoder = state_shapes(build({}).state_dict())
    decoder = {
        "mask_token": (1, 1, 512),
        "mask_token_decoder": (1, 1, 512),
        "decoder_embed.weight": (512, 1024),
        "pos_emb_projection.weight": (512, 512),
        "fpn.fpn1.0.weight": (512, 512, 2, 2),
        "fcn_high.proj.bias": (256,),
    }
    file = {key: torch.tensor(1.0 + i).expand(shape) for i, (key, shape) in enumerate((encoder | decoder).items())}
    torch.save({"model": file}, tmp_path / "file.pth")
    found = models.build("scalemae", str(tmp_path / "file.pth")).state_dict()
    assert {name: float(value.flatten()[-1]) for name, value in found.items()} == {
        name: float(file[name].flatten()[-1]) for name in encoder
    }


def test_another_checkpoint_is_refused_with_a_sentence():
    shapes = state_shapes(build({}).state_dict())
    with pytest.raises(UserError, match="patch size 8; scalemae has 16"):
        build(shapes | {"patch_embed.proj.weight": (1024, 3, 8, 8)})


def pooled(model: Backbone, side: int, **more) -> torch.Tensor:
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    return model(Batch({"optical": image}, "rgb", **more)).pooled


def test_a_scene_has_scale_1_at_224_pixels_and_a_larger_one_where_it_is_shown_smaller(model: Backbone):
    for side, scale in ((32, 7.0), (112, 2.0), (224, 1.0)):
        batch = Batch({"optical": torch.zeros(3, 3, side, side)}, "rgb")
        assert model.scale(batch).tolist() == [scale] * 3  # pyright: ignore[reportCallIssue]
    assert torch.equal(pooled(model, 32), pooled(model, 32, relative_gsd=torch.tensor([7.0, 7.0])))


def test_each_image_has_its_own_scale_and_metres_are_none(model: Backbone):
    both = pooled(model, 32, relative_gsd=torch.tensor([7.0, 1.0]))
    at_7, at_1 = (pooled(model, 32, relative_gsd=torch.full((2,), scale)) for scale in (7.0, 1.0))
    torch.testing.assert_close(both, torch.stack([at_7[0], at_1[1]]))
    assert not torch.allclose(at_7, at_1, atol=1e-3)
    assert torch.equal(pooled(model, 32, gsd=10.0), pooled(model, 32, gsd=0.3))


def test_from_a_patch_to_the_scale_that_its_size_leads_to(model: Backbone):
    """EuroSAT's 64 pixels: at the model's size the authors pass 1, at its own 3.5."""
    bands = [Band(name, name, "uint8") for name in ("RGB:red", "RGB:green", "RGB:blue")]
    for size, scale in (("model", 1.0), ("native", 3.5)):
        transform = compile_transform(model.card, bands, input_size=size)
        batch = transform.batch(torch.zeros(1, 3, 64, 64), gsd=10)
        assert model.scale(batch).tolist() == [scale]  # pyright: ignore[reportCallIssue]


def altered(tmp_path: Path, **args: object) -> Path:
    """The carried kit with its first case alone, and other arguments to it."""
    manifest = json.loads((SLIM / "scalemae" / "manifest.json").read_text())
    cases = manifest["golden"]["cases"]
    cases["c160_res"]["args"] |= args
    manifest["golden"]["cases"] = {"c160_res": cases["c160_res"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(SLIM / "scalemae" / "golden.npz", tmp_path)
    return tmp_path


def test_a_scale_too_many_is_a_failure_and_not_ignored(tmp_path: Path):
    outcome = verify.run_kit(altered(tmp_path, input_res=[0.3, 2.5, 1.0]))
    assert outcome.failures == ("c160_res: argument input_res = [0.3, 2.5, 1.0] is not true of what was built",)


def test_the_stored_positions_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.networks.scalemae.ScaleMaeViT.positions", PlainViT.positions)
    outcome = verify.run_kit(SLIM / "scalemae")
    assert len(outcome.failures) == outcome.n_arrays
    assert outcome.error > 100 * outcome.limit
