"""Parity with the authors' code: what a kit holds beyond `stage1..4` and `pooled`, mapped per adapter.

A module here is named after its adapter and may have six names, all optional (without the file, a kit may hold the
shared arrays only). An array that neither `harness.verify` nor the module maps is a failure.

    prepare(model: Backbone, batch: Batch, args: Mapping[str, object]) -> Batch
        bring the model's switches to what the case's `args` say (a window), and the arguments into the batch (wavelengths)
    FUNCTIONS: dict[str, Callable[[Backbone, dict[str, Tensor], Mapping[str, Any]], dict[str, Tensor]]]
        for a case with an argument `function`, which makes no pass: its inputs by name and its arguments -> its arrays
    ARGUMENTS: dict[str, Callable[[Backbone, Batch, object], bool]]
        what a case may state in `args`, and whether it is true of what was built and fed; any other one is a failure
    recorded(model: Backbone) -> dict[str, nn.Module]
        modules whose outputs are kept while `encode` runs
    arrays(model: Backbone, run: Run) -> dict[str, Tensor]
        further arrays by their name in the kit
    Network(card: Card), with run(case: Case) -> dict[str, numpy.ndarray]
        in place of all others, for kits whose cases fill parts of a model: it does what `harness.verify.Network` does
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from models.common.backbone import Batch
    from models.parity.kit import Case


class Run(NamedTuple):
    """One pass of `encode`: what it returned, the outputs of the recorded modules by name, and what it was given.

    `state` is the whole state dict of the case by its names in the kit, with entries that the checkpoint's card ignores.
    """

    stages: "tuple[Tensor, ...]"
    vectors: "dict[str, Tensor]"
    outputs: "dict[str, Tensor]"
    case: "Case"
    batch: "Batch"
    state: "dict[str, Tensor]"
