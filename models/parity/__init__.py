"""Parity with the authors' code: what a kit holds beyond `stage1..4` and `pooled`, mapped per adapter.

A module here is named after its adapter and may have three names, all optional (without the file, a kit may hold the
shared arrays only). An array that neither `harness.verify` nor the module maps is a failure.

    ARGUMENTS: dict[str, Callable[[Backbone, Batch, object], bool]]
        what a case may state in `args`, and whether it is true of what was built and fed; any other one is a failure
    recorded(model: Backbone) -> dict[str, nn.Module]
        modules whose outputs are kept while `encode` runs
    arrays(model: Backbone, run: Run) -> dict[str, Tensor]
        further arrays by their name in the kit
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Run(NamedTuple):
    """One pass of `encode`: what it returned, and the outputs of the recorded modules by name."""

    stages: "tuple[Tensor, ...]"
    vectors: "dict[str, Tensor]"
    outputs: "dict[str, Tensor]"
