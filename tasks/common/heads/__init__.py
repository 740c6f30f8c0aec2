"""Heads that turn four maps into class logits per pixel: one door, `build`, whatever is behind it."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from models.common.errors import UserError, choose
from models.common.pyramid import pyramid
from tasks.common.heads import linear, unet, upernet
from tasks.common.heads.factorised import Factorised

KINDS = ("upernet", "upernet-lite", "linear", "unet")


class Logits(NamedTuple):
    """`main`: (B, classes, h, w), at the head's own size. `auxiliary`: the same of the auxiliary head, in training."""

    main: Tensor
    auxiliary: Tensor | None = None


class Head(nn.Module):
    """A decoder behind a guarded door: it says what it was built for, and refuses what batch norm could not train on."""

    def __init__(
        self,
        kind: str,
        channels: Sequence[int],
        strides: Sequence[float],
        decoder: nn.Module,
        auxiliary: nn.Module | None,
        pyramid_align_corners: bool,
    ) -> None:
        super().__init__()
        self.kind, self.channels, self.strides = kind, tuple(channels), tuple(strides)
        self.decoder, self.auxiliary = decoder, auxiliary
        self.pyramid_align_corners = pyramid_align_corners

    def forward(self, stages: Sequence[Tensor]) -> Logits:
        """Four native maps (B, channels[i], H_i, W_i), shallow to deep -> logits at the head's own size.

        That is the first map of the pyramid (stride 4) for UPerNet, the largest map for `linear`, 16 times the last map or
        the image for `unet`. Auxiliary logits (third map of the pyramid) come in training alone. Raises `UserError` for
        maps other than those that the head was built for, and for a training batch that batch norm has no statistics of.
        """
        self.check(stages)
        maps = pyramid(stages, self.strides, self.pyramid_align_corners) if self.pools else stages
        return Logits(
            self.decoder(maps), self.auxiliary(maps) if self.auxiliary is not None and self.training else None
        )

    @property
    def pools(self) -> bool:
        """Whether this is a UPerNet, which takes a pyramid and averages its last map to a single pixel."""
        return self.kind.startswith("upernet")

    def check(self, stages: Sequence[Tensor]) -> None:
        """Refuse maps of another number or width, and in training a batch that leaves batch norm one value per channel."""
        found = tuple(stage.shape[1] for stage in stages)
        if found != self.channels:
            raise UserError(
                f"the {self.kind} head was built for {len(self.channels)} maps of {_listed(self.channels)} channels, and got "
                f"{len(found)} of {_listed(found)}: build it with the channels of the model that feeds it"
            )
        pixels = 1 if self.pools else max(stage.shape[2] * stage.shape[3] for stage in stages)
        if self.training and len(stages[0]) * pixels == 1:
            raise UserError(
                f"the {self.kind} head cannot train on a batch of one image: batch norm of a map of one pixel needs two; "
                "take a batch of at least 2"
            )


def build(
    kind: str,
    channels: Sequence[int],
    strides: Sequence[float],
    num_classes: int,
    *,
    pyramid_align_corners: bool = False,
    dropout: float = 0.1,
    auxiliary: bool = False,
) -> Head:
    """A fresh head of `KINDS` for four maps of these channels and strides (a card's, or a neck's), in training mode.

    `pyramid_align_corners` is how UPerNet's pyramid is made (DEO: True). `auxiliary` adds mmsegmentation's FCN head to
    a UPerNet. Parameters are drawn from torch's global generator and nothing else. Raises `UserError` for another kind,
    another number of maps than four, fewer than one class, or an auxiliary head that this kind does not have.
    """
    choose("head", kind, KINDS)
    if len(channels) != 4 or len(strides) != 4:
        raise UserError(
            f"a head takes four maps; the model gives {len(channels)} ({_listed(channels)} channels, strides {_listed(strides)})"
        )
    if num_classes < 1:
        raise UserError(f"a head needs at least one class, got {num_classes}")
    hidden = {"upernet": upernet.HIDDEN, "upernet-lite": upernet.LITE_HIDDEN}.get(kind, 0)
    if auxiliary and not hidden:
        raise UserError(f"the {kind} head has no auxiliary head; switch it off, or take upernet or upernet-lite")
    if hidden:
        decoder = upernet.decode_head(channels, num_classes, hidden, dropout)
        # The narrow head gains little by it (tests/benchmarks/upernet_factorised.py).
        decoder = Factorised(decoder) if kind == "upernet" else decoder
    elif kind == "linear":
        decoder = linear.PixelLinear(channels, num_classes, dropout)
    else:
        decoder = unet.UNet(channels, strides, num_classes, dropout)
    # Drawn last, so that the switch leaves the decoder's own draw as it is.
    side = upernet.auxiliary_head(channels, num_classes, hidden, dropout) if auxiliary else None
    return Head(kind, channels, strides, decoder, side, pyramid_align_corners)


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
