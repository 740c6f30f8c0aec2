"""SeCo's query encoder: torchvision's ResNet-50 under the names of the official checkpoint."""

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.resnet import resnet50

from models.common.backbone import Backbone, Batch
from models.common.card import Card
from models.common.errors import UserError
from models.common.tokens import guess

ENCODER = "encoder_q."
LAYERS = range(4, 8)  # of the encoder; 0 to 3 are the stem


def expect_encoder(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `UserError` saying what the checkpoint is, unless it holds a ResNet-50 as query encoder of SeCo."""
    if f"{ENCODER}0.weight" not in shapes:
        kind = "; it looks like a plain ResNet" if "layer1.0.conv1.weight" in shapes else guess(shapes)
        raise UserError(f"this is no checkpoint of {card.label}: it has no {ENCODER}0.weight{kind}")
    counts = tuple(
        sum(key.startswith(f"{ENCODER}{layer}.") and key.endswith(".conv1.weight") for key in shapes)
        for layer in LAYERS
    )
    if f"{ENCODER}4.0.conv3.weight" not in shapes:
        raise UserError(f"this checkpoint is a ResNet of plain blocks {counts} (18 or 34 layers); {card.label} has 50")
    if counts != (3, 4, 6, 3):
        raise UserError(f"this checkpoint is a ResNet of {counts} bottleneck blocks; {card.label} has (3, 4, 6, 3)")


class Seco(Backbone):
    """ResNet-50 (stride in the 3 x 3 convolution, running statistics), any height and width."""

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self.encoder_q = nn.Sequential(*list(resnet50().children())[:8])  # without pooling and classifier

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Batch counters, which no evaluation reads, may be absent."""
        own = {key: value for key, value in self.state_dict().items() if key.endswith(".num_batches_tracked")}
        return {**own, **state}

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The outputs of layers 1 to 4, at strides 4, 8, 16, 32; every vector (B, 2048) is the mean of the last."""
        stages = []
        features = batch.images["optical"]
        for index, layer in enumerate(self.encoder_q):
            features = layer(features)
            if index in LAYERS:
                stages.append(features)
        mean = features.mean(dim=(2, 3))
        return tuple(stages), {"default": mean, "raw": mean, "mean": mean}
