"""Folders and zips in the layout of the diffusers library: which files count, and which zips are something else."""

from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from models.common import pipeline
from models.common.errors import UserError

FOLDERS = {"unet": "step-10/unet", "vae": "vae"}
BIN, SAFE = "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"


def test_the_folder_nearest_the_top_counts_and_safetensors_come_first():
    names = [
        f"top/step-10/unet/{BIN}",
        f"top/unet/{SAFE}",
        f"top/old/step-10/unet/{SAFE}",
        f"top/step-10/unet_ema/{SAFE}",
    ]
    names += [f"top/vae/{BIN}", f"top/vae/{SAFE}", "top/vae/config.json", f"top/step-10/vae/deeper/{SAFE}"]
    found = pipeline.find(names, FOLDERS, Path("here"))
    assert found == {"unet": f"top/step-10/unet/{BIN}", "vae": f"top/vae/{SAFE}"}
    assert pipeline.find([f"step-10/unet/{BIN}", f"vae/{BIN}"], FOLDERS, Path("here"))["vae"] == f"vae/{BIN}"


def test_a_missing_network_is_named():
    with pytest.raises(UserError, match=r"^here has no step-10/unet with diffusion_pytorch_model\.safetensors or"):
        pipeline.find([f"unet/{BIN}", f"vae/{BIN}"], FOLDERS, Path("here"))


def test_a_pytorch_file_is_a_zip_and_no_pipeline(tmp_path: Path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pth")
    (tmp_path / "text.pth").write_text("no zip at all")
    with ZipFile(tmp_path / "pipeline.zip", "w") as archive:
        archive.writestr(f"top/vae/{BIN}", b"")
    assert [pipeline.is_here(tmp_path / name) for name in ("weights.pth", "text.pth", "pipeline.zip", ".")] == [
        False,
        False,
        True,
        True,
    ]


def test_a_pickle_in_a_zip_is_not_executed(tmp_path: Path):
    class Harm:
        def __reduce__(self) -> tuple:
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"weight": Harm()}, tmp_path / BIN)
    with ZipFile(tmp_path / "pipeline.zip", "w") as archive:
        for folder in FOLDERS.values():
            archive.write(tmp_path / BIN, f"{folder}/{BIN}")
    with pytest.raises(Exception, match="weights_only"):
        pipeline.read(tmp_path / "pipeline.zip", FOLDERS, torch.load)
    assert not (tmp_path / "harm").exists()
