"""SatDiFuser's kits: cases that fill some of its networks, and fused maps, which are those of a trained neck.

A case may hold the UNet, the text encoder, the VAE, fusers and the heads behind them, in one list of names without
prefix; so the network of `harness.verify` has a substitute here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.common.bands import compile_transform
from models.common.card import Card
from models.common.errors import UserError
from models.common.spectral import band
from models.networks import satdifuser as ours
from models.networks.diffusion import LENGTH, Size, UNet
from models.networks.diffusion_encoders import TextEncoder, Vae
from models.networks.satdifuser_fusers import FUSERS, WARM_UP, MixtureOfExperts
from models.parity import synthetic
from models.parity.components import Components, Shapes
from models.parity.heads import Classifier, UPerNet
from models.parity.kit import Case

Arrays = dict[str, Tensor]
PROMPT = "A satellite image"
BEGINNINGS = {
    "text_encoder": ("text_model.",),
    "vae": ("encoder.", "decoder.", "quant_conv.", "post_quant_conv."),
    "layers": ("bottleneck_layers.",),  # of gw and lw
    "gw": ("mixing_weights",),
    "lw": ("gate_modules.",),
    "moe": ("scale_moes.",),
    "classifier": ("decoder_head.",),
    "upernet": ("psp_modules.", "bottleneck.", "lateral_convs.", "fpn_convs.", "fpn_bottleneck.", "conv_seg."),
}
# How arrays behind a fuser begin, the fuser, and how often it has been called: the mixture changes after a warm-up.
FUSED = (("", "gw", 0), ("lw/", "lw", 0), ("moe_warm/", "moe", 0), ("moe_topk/", "moe", WARM_UP))


class Network:
    """Runs cases in place of `harness.verify.Network`."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.components = Components(BEGINNINGS, rest="unet", ignore=card.checkpoint.ignore)

    def run(self, case: Case) -> dict[str, np.ndarray]:
        """Every array that can be named for a case, by its name in the kit, as full float32 arrays."""
        inputs = {name: torch.from_numpy(synthetic.image(dict(spec))) for name, spec in case.inputs.items()}
        try:
            with torch.no_grad():
                if "function" in case.args:
                    found = self.prepared(inputs["image"], case.args)
                elif "latent" in inputs:
                    found = self.features(inputs, case)
                else:
                    found = self.encoded(inputs["image"], case)
        except KeyError as error:
            raise UserError(f"the case lacks {error}, which models/parity/satdifuser.py needs") from error
        return {name: array.numpy() for name, array in found.items()}

    def prepared(self, image: Tensor, args: Mapping[str, Any]) -> Arrays:
        """Digital numbers as the card's transform prepares them, here at any size."""
        check(args, {"function": "Sentinel-2 preprocessing", "img_size": args["img_size"]})
        free = replace(self.card, inputs=tuple(replace(mode, multiple=1) for mode in self.card.inputs))
        bands = [band(name, name, "dn") for name in ("S2:B04", "S2:B03", "S2:B02")]
        return {"s2": compile_transform(free, bands, input_size=args["img_size"])(image)}

    def encoded(self, image: Tensor, case: Case) -> Arrays:
        """Moments of the VAE, and latents as the authors draw them: from one generator for the whole batch."""
        seed, scale = case.args["latents_generator_seed"], case.args["latents_scale"]
        check(case.args, {"latents_generator_seed": seed, "latents_scale": scale})
        vae = self.components.filled(
            case,
            ("vae",),
            lambda shapes: Vae(self.size(shapes)),
            lambda name, value: (ours.newer(name), ours.flat(name, value)),
        )
        mean, logvar = vae(image)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
        return {"mean": mean, "logvar": logvar, "latents": (mean + (0.5 * logvar).exp() * noise) * scale}

    def features(self, inputs: Arrays, case: Case) -> Arrays:
        """Maps of the UNet at every kept step, and what fusers and heads with weights in the case make of them."""
        latents, args, found = inputs["latent"], case.args, {}
        prompt = inputs.get("text_embedding")
        if prompt is None:
            text = self.components.filled(case, ("text_encoder",), lambda shapes: TextEncoder(self.size(shapes)))
            ids, padding = args["input_ids"], args["input_ids_padding"]
            prompt = found["cond"] = text((*ids, *[padding["id"]] * (padding["length"] - len(ids))))
        prompt = prompt.expand(len(latents), -1, -1)
        unet = self.components.filled(case, ("unet",), lambda shapes: UNet(self.size(shapes)))
        if args["diffusion_mode"] == "generation":
            called, kept = generate(unet, latents, prompt, args["save_timesteps"])
        else:
            called = ours.inversion(args["save_timesteps"])
            kept = ours.invert(unet, latents, prompt, args["save_timesteps"])
        self.check(args, latents, called, kept)
        for index, (maps, start) in kept.items():
            found[f"t{index}/x0"] = start
            for number, one in enumerate(maps, 1):
                found[f"t{index}/scale{number}"], found[f"t{index}/scale{number}_mean"] = one, one.mean(dim=(2, 3))
        of_steps = [kept[index][0] for index in sorted(kept, reverse=True)]
        stages = [torch.cat(maps, dim=1) for maps in zip(*of_steps, strict=True)]
        return found | self.fused(stages, len(kept), case)

    def fused(self, stages: list[Tensor], steps: int, case: Case) -> Arrays:
        """Fused maps, vector and logits of every fuser in the case; logits of the segmenter at the size of their array."""
        present, found = self.components.present(case), {}
        layers = ours.layers(self.size({name: shape for name, shape, _ in case.keys}))
        for prefix, kind, calls in FUSED:
            if kind not in present:
                continue
            parts = (kind,) if kind == "moe" else (kind, "layers")
            fuser = self.components.filled(case, parts, lambda _, kind=kind: FUSERS[kind](layers, steps), fact=steps)
            if isinstance(fuser, MixtureOfExperts):
                fuser.calls.fill_(calls)
            maps, vector = fuser(stages)
            found |= {f"{prefix}stage{number}": one for number, one in enumerate(maps, 1)}
            found[f"{prefix}pooled"] = vector
            if "classifier" in present:
                found[f"{prefix}logits"] = self.components.filled(case, ("classifier",), Classifier.of_shapes)(vector)
            logits = f"{kind}_upernet/logits"
            if "upernet" in present and logits in case.arrays and calls == 0:
                head = self.components.filled(case, ("upernet",), UPerNet.of_shapes)
                found[logits] = head(maps, case.arrays[logits].full[2:])
        return found

    def size(self, shapes: Shapes) -> Size:
        """The known size that these entries fit."""
        for size in (Size(**values) for values in self.card.build["sizes"]):
            widths = {
                "conv_in.weight": size.unet[0],
                "encoder.conv_in.weight": size.vae[0],
                "text_model.final_layer_norm.weight": size.text,
            }
            if all(shapes[name][0] == width for name, width in widths.items() if name in shapes):
                return size
        raise UserError(f"the weights of this case have no size of {self.card.label}")

    def check(self, args: Mapping[str, Any], latents: Tensor, called: list[int], kept: Mapping[int, Any]) -> None:
        """Compare what a case states with what was done; what it gives was used already."""
        given = ("save_timesteps", "diffusion_mode", "input_ids", "text_embedding")
        true = {name: args[name] for name in given if name in args}
        of_card = args.get("input_ids") == list(self.card.build["prompt"])
        if "prompt" in args:
            true["prompt"] = args["prompt"] if (args["prompt"] == PROMPT) == of_card else PROMPT
        if "input_ids_padding" in args:
            true["input_ids_padding"] = {**args["input_ids_padding"], "length": LENGTH}
        last = args["diffusion_mode"] == "generation"
        true["img_size"] = 8 * latents.shape[2]
        true["unet_timesteps_called"] = called
        true["saved_index_to_t"] = {str(index): called[-1 if last else ours.STEPS - 1 - index] for index in kept}
        true["collected_layers"] = [
            f"up_blocks_{level}_{kind}_{index}"
            for level in range(4)
            for kind in ("attn1", "conv2")
            for index in range(3)
            if level or kind == "conv2"
        ]
        check(args, true)


def generate(
    unet: UNet, latents: Tensor, prompt: Tensor, save: list[int]
) -> tuple[list[int], dict[int, tuple[tuple[Tensor, ...], Tensor]]]:
    """The authors' other mode: noise for the whole batch added at once, and one call of the UNet at the noisiest index."""
    index = min(save)
    t = ours.timesteps()[ours.STEPS - 1 - index]
    signal = ours.alphas()[t]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(ours.SEED))
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    found, maps = unet(noisy, torch.full((len(noisy),), float(t)), prompt)
    return [t], {index: (maps, ours.clean(noisy, found, signal))}


def check(args: Mapping[str, Any], true: Mapping[str, Any]) -> None:
    """Refuse arguments that are not understood, or that say what is not true."""
    for name, value in args.items():
        if name not in true:
            raise UserError(f"argument {name!r} is not understood by models/parity/satdifuser.py")
        if value != true[name]:
            raise UserError(f"argument {name} = {value!r} is not true of what was built ({true[name]!r})")
