"""torchvision's ResNet-50 behind the feature contract."""

from collections.abc import Mapping

from torch import Tensor
from torchvision.models import resnet50

from models.common.backbone import Backbone, Batch
from models.common.card import Card
from models.common.errors import UserError
from models.common.tokens import guess


class ResNet50(Backbone):
    """The four layers of a ResNet-50 (v1.5: the stride is in the 3 x 3 convolution), without its classifier."""

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        network = resnet50(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            network.layer1,
            network.layer2,
            network.layer3,
            network.layer4,
        )

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Maps (B, 256 * 2**i, ceil(H / (4 * 2**i)), ...), i = 0..3, and the mean of the last as `default` and `mean`."""
        stages = []
        features = self.maxpool(self.relu(self.bn1(self.conv1(batch.images["optical"]))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = layer(features)
            stages.append(features)
        mean = features.mean(dim=(2, 3))
        return tuple(stages), {"default": mean, "mean": mean}


def require_resnet50(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint that is no ResNet-50, by the shapes of its entries (none: random weights, nothing to refuse).

    Raises `UserError` with the depths of a ResNet of another size, or with what else it looks like.
    """
    if not shapes:
        return
    if "conv1.weight" not in shapes:
        raise UserError(f"this is no checkpoint of {card.label}: it has no conv1.weight{guess(shapes)}")
    blocks = {key.rpartition(".conv1.weight")[0] for key in shapes if key.startswith("layer")}
    depths = tuple(sum(block.startswith(f"layer{layer}.") for block in blocks - {""}) for layer in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in shapes
    if depths != (3, 4, 6, 3) or not bottleneck:
        kind = "bottleneck" if bottleneck else "basic"
        raise UserError(
            f"this checkpoint is a ResNet of {depths} {kind} blocks; {card.label} has (3, 4, 6, 3) bottleneck blocks"
        )
