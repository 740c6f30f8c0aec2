"""What kits of ViTs hold beyond stages and pooled, from the outputs of the tapped blocks; shared by the adapters."""

from torch import Tensor, nn

from models.common.backbone import Backbone, tokens_to_map
from models.parity import Run


def recorded(model: Backbone) -> dict[str, nn.Module]:
    """The tapped blocks; they put out tokens (B, prefix + rows*columns, C), class token first."""
    return {f"raw{number}": model.get_submodule(f"blocks.{index}") for number, index in enumerate(model.card.blocks, 1)}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """Block outputs without the norm as maps, vectors of the last block, `registers` (B, N, C) where there are any."""
    rows, columns = run.stages[0].shape[2:]
    last = run.outputs["raw4"]
    prefix = last.shape[1] - rows * columns
    normed = model.get_submodule("norm")(last)
    found = {name: tokens_to_map(tokens[:, prefix:], (rows, columns)) for name, tokens in run.outputs.items()}
    found["stage4_normed"] = tokens_to_map(normed[:, prefix:], (rows, columns))
    found["mean_normed"] = run.vectors["mean"]
    found["mean_raw"] = last[:, prefix:].mean(dim=1)
    found["cls_raw"] = found["pooled_raw"] = run.vectors["raw"]
    if prefix > 1:
        found["registers"] = normed[:, 1:prefix]
    return found
