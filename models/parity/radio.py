"""RADIO's kit: class tokens of every tapped block, and the adaptor that maps features to those of a teacher."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from models.common.backbone import Backbone, Batch, tokens_to_map
from models.networks.radio import Radio, summary
from models.parity import Run

HEADS, PROJECTIONS = "_heads.", "_feature_projections."
TEACHERS = ("clip", "siglip", "dino_v2", "sam")  # in the order of their class tokens


def prepare(model: Backbone, batch: Batch, args: Mapping[str, object]) -> Batch:
    """Leave the input statistics out where the case says that its input is already normalised."""
    assert isinstance(model, Radio)
    model.conditioned = args.get("input_conditioner") != "bypassed"
    return batch


def _conditioner(model: Backbone, batch: Batch, value: object) -> bool:
    return isinstance(model, Radio) and value == ("applied" if model.conditioned else "bypassed")


ARGUMENTS = {"input_conditioner": _conditioner}


def recorded(model: Backbone) -> dict[str, nn.Module]:
    """The tapped blocks, whose outputs begin with the class tokens."""
    return {
        f"stage{number}": model.get_submodule(f"blocks.{index}") for number, index in enumerate(model.card.blocks, 1)
    }


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """`stage1_summary` ..., the mean of the last map, `spatial` (the last map), and what the case's adaptor makes of both."""
    found = {f"raw{number}": stage for number, stage in enumerate(run.stages, 1)}
    found |= {f"{name}_summary": summary(model.card, tokens) for name, tokens in run.outputs.items()}
    found |= {"spatial": run.stages[3], "mean_raw": run.stages[3].mean(dim=(2, 3)), "pooled_raw": run.vectors["raw"]}
    teachers = {key.removeprefix(HEADS).split(".")[0] for key in run.state if key.startswith(HEADS)}
    if len(teachers) == 1:
        teacher = teachers.pop()
        token = int(teacher) if teacher.isdigit() else TEACHERS.index(teacher)
        last, grid = run.outputs["stage4"], (run.stages[3].shape[2], run.stages[3].shape[3])
        found["adaptor_summary"] = adapt(_part(run.state, f"{HEADS}{teacher}."), last[:, token])
        patches = adapt(_part(run.state, f"{PROJECTIONS}{teacher}."), last[:, -grid[0] * grid[1] :])
        found["adaptor_features"] = tokens_to_map(patches, grid)
    return found


def adapt(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """The official `MLP2` on features (..., C): a projection, residual blocks of norm, GELU and Linear, and one more such.

    Widths and the number of blocks are those of the weights.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def layer(name: str, x: Tensor) -> Tensor:
        norm = weights[f"{name}.0.weight"]
        normed = functional.layer_norm(x, norm.shape, norm, weights[f"{name}.0.bias"], eps=1e-5)
        return linear(f"{name}.2", functional.gelu(normed))

    features = linear("fc1", features)
    blocks = {int(key.split(".")[1]) for key in weights if key.startswith("blocks.")}
    for index in sorted(blocks):
        features = features + layer(f"blocks.{index}", features)
    return layer("final", features)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
