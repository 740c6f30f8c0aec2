"""SatDiFuser (Jia et al., ICCV 2025, arXiv:2503.07890): the inner maps of DiffusionSat, a diffusion model of RGB images.

Frozen are DiffusionSat's UNet, VAE and text encoder. What the paper trains on each task, and what its tables measure, is
a fuser behind them: it is the backbone's neck (`gw`, `lw`, `moe`), to be trained with the head. Without it, `stages` are
the UNet's maps of all kept steps side by side and `pooled` is their mean over pixels and steps: no part of them is
learned on a task or freshly initialised, and a linear head on them is no SatDiFuser of the paper. The prompt is the
authors' "A satellite image" for every data set, also for the two to which they gave a longer one.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.common.card import Card, Checkpoint, Clip, Divide, Mode, ZScore
from models.common.errors import UserError

if TYPE_CHECKING:
    from models.common.backbone import Backbone
    from models.networks.diffusion import Size

RGB = ("red", "green", "blue")
CENTRE = ZScore((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def inputs(size: int) -> tuple[Mode, ...]:
    """Sentinel-2 by its digital numbers (`datasets/m_eurosat.py`), aerial images by their 8 bits (`m_chesapeake.py`).

    The authors scale and clip before they resize.
    """
    dn = (Divide(4095), Clip(0, 1), CENTRE)
    rgb = (Divide(255), Clip(0, 1), CENTRE)
    return (
        Mode("dn", RGB, "dn", dn, size, multiple=64, resize="last"),
        Mode("rgb", RGB, "uint8", rgb, size, multiple=64, resize="last"),
    )


def checkpoint(record: int, file: str) -> Checkpoint:
    """A zip of a diffusers folder; the folder unpacked is taken too. The raw UNet, not its running average."""
    return Checkpoint(
        "https",
        file=file,
        where=f"https://zenodo.org/records/{record} (the folder unpacked will do)",
        url=f"https://zenodo.org/records/{record}/files/{file}",
        folders={"unet": "checkpoint-150000/unet", "vae": "vae", "text_encoder": "text_encoder"},
        ignore=(
            "unet.metadata_embedding.",
            "vae.decoder.",
            "vae.post_quant_conv.",
            "text_encoder.text_model.embeddings.position_ids",
        ),
    )


LARGE = {
    "title": "SatDiFuser (DiffusionSat 512)",
    "inputs": inputs(512),
    "checkpoint": checkpoint(13751498, "finetune_sd21_sn-satlas-fmow_snr5_md7norm_bs64.zip"),
    "gmacs": "4602 at 512 px",
    "published_as": (),
}
# Stable Diffusion 2.1; and a hundredth of it, which is what random weights fill.
FULL = {
    "unet": (320, 640, 1280, 1280),
    "heads": (5, 10, 20, 20),
    "vae": (128, 256, 512, 512),
    "text": 1024,
    "text_hidden": 4096,
    "text_layers": 23,
    "text_heads": 16,
}
REDUCED = {
    "unet": (32, 64, 128, 128),
    "heads": (2, 4, 8, 8),
    "vae": (32, 32, 64, 64),
    "text": 48,
    "text_hidden": 96,
    "text_layers": 3,
    "text_heads": 4,
}

CARD = Card(
    name="satdifuser",
    title="SatDiFuser (DiffusionSat 256)",
    inputs=inputs(256),
    checkpoint=checkpoint(13756199, "finetune_sd21_256_sn-satlas-fmow_snr5_md7norm_bs64.zip"),
    channels=(5760, 11520, 23040, 11520),
    strides=(8, 16, 32, 64),
    width=17280,
    licence="Apache-2.0 (code); not stated (weights, fine-tuned from Stable Diffusion 2.1)",
    paper="Jia et al., ICCV 2025, arXiv:2503.07890; weights: Khanna et al., ICLR 2024, arXiv:2312.03606",
    parameters_millions=1240.5,
    gmacs="1064 at 256 px",
    pretraining_data="fMoW, Satlas, SpaceNet (RGB); before that LAION-5B, as Stable Diffusion 2.1",
    published_as=("SatDiFuser",),
    build={
        "save": (47, 45, 40),
        "prompt": (49406, 320, 10316, 2867, 49407),  # "A satellite image", between start and end
        "sizes": (FULL, REDUCED),
    },
    necks=("gw", "lw", "moe"),
    variants={"256": {}, "512": LARGE},
)


def build(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Backbone":
    """The three networks in the size of the checkpoint; random ones are a hundredth of the official."""
    from models.networks.satdifuser import SatDiFuser

    return SatDiFuser(card, read_size(card, shapes))


def read_size(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> "Size":
    """Which of the known sizes the UNet of a checkpoint has; the number of heads cannot be read off its shapes.

    Raises `UserError` for a checkpoint without UNet, or whose UNet has another width or was made for other prompts.
    """
    from models.networks.diffusion import Size

    sizes = [Size(**size) for size in card.build["sizes"]]
    if not shapes:
        return sizes[-1]
    levels = [f"unet.down_blocks.{level}.resnets.0.conv1.weight" for level in range(4)]
    prompt = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    if not {*levels, prompt} <= shapes.keys():
        raise UserError(
            f"this is no checkpoint of {card.label}: it has no {levels[0]}{guess(shapes)}; wanted is the whole folder or zip"
        )
    found = (tuple(shapes[level][0] for level in levels), shapes[prompt][1])
    for size in sizes:
        if found == (size.unet, size.text):
            return size
    raise UserError(
        f"the UNet of this checkpoint has widths {found[0]} and reads prompts of width {found[1]}; {card.label} has "
        f"{sizes[0].unet} and {sizes[0].text}, as Stable Diffusion 2.1"
    )


def guess(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a foreign checkpoint looks like, as part of a sentence (empty if nothing is recognised)."""
    if "down_blocks.0.resnets.0.conv1.weight" in shapes:
        return "; it looks like the UNet alone"
    if "model.diffusion_model.input_blocks.0.0.weight" in shapes:
        return "; it has the key layout of the original Stable Diffusion, and the diffusers folder is needed"
    if "mixing_weights" in shapes or any("scale_moes." in name or "gate_modules." in name for name in shapes):
        return "; it looks like a trained fuser, which is a neck and no backbone"
    return ""
