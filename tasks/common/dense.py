"""Training a head per pixel, for segmentation and change detection alike: which epoch and rate, on which stages.

What is fitted: head (and neck, and the backbone where a protocol fine-tunes it), on the train split. What is chosen, on the
val split: the epoch, then the learning rate. Nothing here looks at the test split.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from models.common.backbone import Backbone
from models.common.errors import UserError
from models.common.weights import module_digest
from tasks.common import fit, heads
from tasks.common.confusion import confusion
from tasks.common.fit import edge_note
from tasks.common.scenes import IGNORE, Maps, Scenes
from tasks.common.tiles import Tile
from tasks.switches import Dense

AUXILIARY_WEIGHT = 0.4  # mmsegmentation's configurations of UPerNet
PYRAMID = (4, 8, 16, 32)  # a neck's maps are taken as they are, as SatDiFuser's authors do
Loss = Callable[[Tensor, Tensor, int | None], Tensor]
Decide = Callable[[Tensor], Tensor]
Score = Callable[[np.ndarray], float]


class Decoder(nn.Module):
    """A head, behind the model's neck where it has one."""

    def __init__(self, neck: nn.Module | None, head: heads.Head) -> None:
        super().__init__()
        self.neck, self.head = neck, head

    def forward(self, stages: Maps) -> heads.Logits:
        """Stages (B, C_i, H_i, W_i) -> logits (B, K, h, w)."""
        return self.head(self.neck(stages).stages if self.neck is not None else stages)


@dataclass(frozen=True)
class Trained:
    """The decoder of the best epoch at the best rate, the backbone it was trained with, and what val decided."""

    decoder: Decoder
    model: Backbone | None
    choices: dict[str, float]
    notes: tuple[str, ...]
    facts: dict[str, object]

    def logits(self, scenes: Scenes) -> Callable[[Sequence[Tile]], Tensor]:
        """A function of tiles of one size: their logits (B, K, h, w)."""
        return lambda tiles: infer(scenes, self.decoder, self.model, tiles)


def plain(model: Backbone) -> bool:
    """Whether all stages have one stride: a ViT without hierarchy."""
    return len(set(model.card.strides)) == 1


def head_kind(switches: Dense, model: Backbone) -> str:
    """The head that `auto` stands for: UNet for plain ViTs, UPerNet for hierarchical backbones."""
    if switches.head != "auto":
        return switches.head
    return "unet" if plain(model) else "upernet"


def decoder(scenes: Scenes, switches: Dense, outputs: int) -> Decoder:
    """A fresh decoder that fits the model's stages."""
    model = scenes.backbone()
    first = scenes.training(scenes.names["train"])[:1]
    with torch.no_grad():
        stages, _ = scenes.live(first, model)
    neck = None
    if model.card.necks and switches.neck != "none":
        neck = model.neck("" if switches.neck == "default" else switches.neck).to(stages[0].device)
        with torch.no_grad():
            stages = deepcopy(neck).eval()(stages).stages
    kind = head_kind(switches, model)
    head = heads.build(
        kind,
        [stage.shape[1] for stage in stages],
        PYRAMID if neck is not None else model.card.strides,
        outputs,
        pyramid_align_corners=switches.pyramid_align_corners,
        dropout=switches.unet_dropout if kind == "unet" else switches.dropout,
        auxiliary=switches.auxiliary,
    )
    return Decoder(neck, head.to(stages[0].device))


def infer(scenes: Scenes, decoder: Decoder, model: Backbone | None, tiles: Sequence[Tile]) -> Tensor:
    """Logits (B, K, h, w) in eval mode; `model` is the fine-tuned backbone, None the frozen one."""
    decoder.eval()
    with torch.no_grad():
        if model is None:
            stages = scenes.stages(tiles)
        else:
            stages, _ = scenes.live(tiles, model.eval())
        with precision(scenes):
            return decoder(tuple(stage.to(scenes.compute.device) for stage in stages)).main.float()


@contextmanager
def precision(scenes: Scenes) -> Iterator[None]:
    """Heads compute in bf16 where the run does; fp16 is for the backbone alone (a head would need its loss scaled)."""
    device = torch.device(scenes.compute.device)
    with torch.autocast(device.type, torch.bfloat16, enabled=scenes.compute.precision == "bf16"):
        yield


def confusions(
    scenes: Scenes,
    names: Sequence[str],
    logits: Callable[[Sequence[Tile]], Tensor],
    decide: Decide,
    keep: dict[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Confusion matrices (N, K, K) of images at native size; `keep` is filled with the predictions of its names.

    Raises `FloatingPointError` where logits are not finite.
    """
    counts: dict[str, np.ndarray] = {}
    for name, found in scenes.predicted(names, logits):
        if not bool(torch.isfinite(found).all()):
            raise FloatingPointError(f"the logits of {name} are not finite")
        prediction, label = decide(found), torch.from_numpy(scenes.label(name))
        classes = scenes.dataset.card.num_classes
        counts[name] = confusion(prediction[None], label[None], classes, IGNORE, [name])[0].numpy()
        if keep is not None and name in keep:
            keep[name] = prediction.numpy().astype(np.int16)
    return np.stack([counts[name] for name in names])


def train(
    scenes: Scenes,
    train_names: Sequence[str],
    val_names: Sequence[str],
    *,
    outputs: int,
    loss: Loss,
    decide: Decide,
    score: Score,
    seed: int,
    switches: Dense,
    report: Callable[[str, int, int], None],
) -> Trained:
    """Train one decoder per learning rate, keep its best epoch, and of the rates the one that val likes best.

    Of equal rates the smallest is taken. `outputs` is the number of logits, `decide` turns logits (K, H, W) into classes
    (H, W), `score` confusions (N, K, K) of the val split into one number, higher being better. Raises `UserError` if there is
    no validation split to choose by, or if every rate diverged.
    """
    tiles = scenes.training(train_names)
    if not val_names and (switches.selection == "best_val" or len(switches.learning_rates) > 1):
        raise UserError(
            f"{scenes.dataset.card.name} has no validation split to choose epoch and learning rate by; declare one, or set "
            "selection=last and one learning rate for the task"
        )
    best: tuple[float, int, Trained] | None = None
    for number, rate in enumerate(switches.learning_rates):
        one = replace(switches, learning_rates=(rate,), learning_rate_by_dataset={})

        def tell(epoch: int, kept: fit.Kept, number: int = number) -> None:
            report("epochs", number * switches.epochs + epoch, len(switches.learning_rates) * switches.epochs)

        value, trained = _train_one(scenes, tiles, val_names, outputs, loss, decide, score, seed, one, tell)
        if value > -np.inf and (best is None or value > best[0]):
            best = value, number, trained
    if best is None:
        raise UserError(f"every learning rate diverged ({switches.learning_rates}); set smaller ones")
    value, number, trained = best
    notes = (*trained.notes, *edge_note("learning rate", switches.learning_rates, number))
    return replace(trained, notes=notes)


def _train_one(
    scenes: Scenes,
    tiles: Sequence[Tile],
    val_names: Sequence[str],
    outputs: int,
    loss: Loss,
    decide: Decide,
    score: Score,
    seed: int,
    switches: Dense,
    report: Callable[[int, fit.Kept], None],
) -> tuple[float, Trained]:
    """One decoder at one learning rate, and its score on val."""
    device = torch.device(scenes.compute.device)
    frozen, tuned = scenes.backbone(), switches.backbone == "finetuned"
    before = module_digest(frozen)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = deepcopy(frozen) if tuned else None
        head = decoder(scenes, switches, outputs)
        own = list(head.parameters())
        rules = [fit.Rule(1.0, switches.weight_decay)] * len(own)
        parameters, buffers = [*own], [buffer for buffer in head.buffers() if buffer.is_floating_point()]
        notes: tuple[str, ...] = ()
        if model is not None:
            reached = _reached(scenes, model, tiles[:1])
            vit = plain(model)
            backbone_rate = switches.vit_learning_rate if vit else switches.backbone_learning_rate
            decay = switches.vit_weight_decay if vit else switches.backbone_weight_decay
            if not reached:
                notes = (f"{model.card.label} has no parameters that could be fine-tuned",)
            parameters += reached
            rules += [fit.Rule(backbone_rate / switches.learning_rates[0], decay)] * len(reached)
            buffers += [buffer for buffer in model.buffers() if buffer.is_floating_point()]

        def batch_loss(rows: Tensor, epoch: int) -> Tensor:
            chosen = [tiles[int(row)] for row in rows]
            if switches.uses_stored_features:
                stages, targets = scenes.stages(chosen), [scenes.target(tile) for tile in chosen]
            else:
                seeds = [] if switches.augmentation == "none" else [(seed, epoch, int(row)) for row in rows]
                stages, targets = _fresh(scenes, chosen, model or frozen, switches, seeds)
            head.train()
            with precision(scenes):
                found = head(tuple(stage.to(device) for stage in stages))
            total = _pixel_loss(scenes, found.main, chosen, targets, loss)
            if found.auxiliary is not None:
                total = total + AUXILIARY_WEIGHT * _pixel_loss(scenes, found.auxiliary, chosen, targets, loss)
            return total[None]

        def epoch_batches(epoch: int) -> Iterator[fit.Batch]:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(len(tiles), generator=generator)
            for part in slices:
                yield order[part], epoch

        def micro(batch: fit.Batch) -> Iterator[tuple[float, fit.Batch]]:
            rows, epoch = batch
            for part in fit.batches(len(rows), switches.micro_batch or len(rows)):
                yield (part.stop - part.start) / len(rows), (rows[part], epoch)

        def validate() -> Tensor:
            value = 0.0
            if val_names:
                try:
                    value = score(confusions(scenes, val_names, lambda part: infer(scenes, head, model, part), decide))
                except FloatingPointError:
                    value = -np.inf
            return torch.tensor([value], dtype=torch.float64, device=device)

        slices = fit.batches(len(tiles), switches.batch)
        kept = fit.fit(
            *(parameters, epoch_batches, len(slices), batch_loss, validate, switches),
            parts=micro,
            rules=rules,
            buffers=buffers,
            report=report,
        )
    with torch.no_grad():
        for mine, best in zip([*parameters, *buffers], [*kept.parameters, *kept.buffers], strict=True):
            mine.copy_(best)
    for parameter in parameters:
        parameter.requires_grad_(False)
    facts: dict[str, object] = {
        "head": head.head.kind,
        "head_parameters": sum(parameter.numel() for parameter in own),
        "backbone_parameters_trained": sum(parameter.numel() for parameter in parameters[len(own) :]),
        "backbone_before": before,
        "backbone_after": module_digest(frozen if model is None else model),
    }
    choices = {"learning_rate": switches.learning_rates[0], "epoch": float(kept.epoch[0])}
    value = float(kept.score[0])
    if val_names and np.isfinite(value):
        choices["validation"] = value
    return value, Trained(head.eval(), model.eval() if model is not None else None, choices, notes, facts)


def _fresh(
    scenes: Scenes, tiles: Sequence[Tile], model: Backbone, switches: Dense, seeds: Sequence[Sequence[int]]
) -> tuple[Maps, list[np.ndarray]]:
    """Stages and labels of one batch, computed now; the backbone is in train mode only inside."""
    tuned = switches.backbone == "finetuned"
    model.stochastic(batch_norm=tuned) if switches.backbone_mode == "train" else model.eval()
    try:
        return scenes.live(tiles, model, gradients=tuned, keys=seeds)
    finally:
        model.eval()


def _reached(scenes: Scenes, model: Backbone, tiles: Sequence[Tile]) -> list[nn.Parameter]:
    """The parameters that the stages depend on, made trainable: not the stem of another sensor, nor a last norm."""
    model.requires_grad_(True)
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    stages, _ = scenes.live(tiles, model.eval(), gradients=True)
    total = torch.stack([stage.double().sum() for stage in stages]).sum()
    if not total.requires_grad:
        return []
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    reached = [one for one, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    model.requires_grad_(False)
    for parameter in reached:
        parameter.requires_grad_(True)
    return reached


def _pixel_loss(
    scenes: Scenes, logits: Tensor, tiles: Sequence[Tile], targets: Sequence[np.ndarray], loss: Loss
) -> Tensor:
    """The loss over all pixels of a batch at the labels' own sizes, which may differ from image to image."""
    if len({target.shape for target in targets}) == 1:
        wanted = torch.from_numpy(np.stack(targets)).to(logits.device)
        return loss(scenes.at_label_size(logits.float(), tiles[0]), wanted, IGNORE)
    pixels = [
        scenes.at_label_size(one[None].float(), tile)[0].flatten(1) for one, tile in zip(logits, tiles, strict=True)
    ]
    wanted = torch.cat([torch.from_numpy(target).flatten() for target in targets]).to(logits.device)
    return loss(torch.cat(pixels, dim=1)[None, :, :, None], wanted[None, :, None], IGNORE)
