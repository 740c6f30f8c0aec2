"""Networks made of parts that a kit's case fills one by one: each part is built once and kept while its weights last."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from models.common.errors import UserError
from models.common.weights import parameters_on_meta
from models.parity import synthetic
from models.parity.kit import Case

Shapes = Mapping[str, tuple[int, ...]]


class Components:
    """`beginnings` gives how the names of each part's entries begin; entries of no other part are of the part `rest`.

    `ignore` holds prefixes, of `<part>.<name>`, of entries that no network here has.
    """

    def __init__(self, beginnings: Mapping[str, tuple[str, ...]], rest: str, ignore: tuple[str, ...]) -> None:
        self.beginnings, self.rest, self.ignore = beginnings, rest, ignore
        self.kept: dict[str, tuple[object, nn.Module]] = {}

    def part(self, name: str) -> str:
        """The part that an entry belongs to."""
        return next((part for part, words in self.beginnings.items() if name.startswith(words)), self.rest)

    def present(self, case: Case) -> set[str]:
        """The parts that a case fills."""
        return {self.part(name) for name, _, _ in case.keys}

    def filled[Module: nn.Module](
        self,
        case: Case,
        parts: tuple[str, ...],
        make: Callable[[Shapes], Module],
        convert: Callable[[str, Tensor], tuple[str, Tensor]] = lambda name, value: (name, value),
        fact: object = None,
    ) -> Module:
        """The module made of these parts, the first of which names it, with the weights of the case, strictly.

        Built on meta and filled in place, so that the weights are in memory once. `convert` maps entries of the kit to
        those of the module; `fact` is what `make` depends on beside their shapes. Raises `UserError` where names or shapes
        differ.
        """
        entries = {
            name: tuple(shape)
            for name, shape, dtype in case.keys
            if "float" in dtype and self.part(name) in parts and not f"{self.part(name)}.{name}".startswith(self.ignore)
        }
        scales = {name: case.scales[name] for name in entries if name in case.scales}
        constants = {
            name: value.tolist()
            for pattern, value in case.constants.items()
            for name in entries
            if fnmatchcase(name, pattern)
        }
        wanted = (entries, scales, constants, fact)
        key = parts[0]
        if key not in self.kept or self.kept[key][0] != wanted:
            self.kept.pop(key, None)  # before the next one is made: there is memory for one
            with parameters_on_meta():
                module = make(entries)
            values = (
                (name, np.asarray(constants.get(name, synthetic.weight(name, shape)) * np.float32(scales.get(name, 1))))
                for name, shape in entries.items()
            )
            state = dict(
                convert(name, torch.from_numpy(value.astype(np.float32, copy=False))) for name, value in values
            )
            fill(module, state, key)
            self.kept[key] = (wanted, module.eval().requires_grad_(False))
        return self.kept[key][1]  # pyright: ignore[reportReturnType]


def fill(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Give a module its floating-point entries, all of them and no others; counters of batches stay as built."""
    own = {key: tuple(value.shape) for key, value in module.state_dict().items() if value.is_floating_point()}
    odd = sorted(dict(own.items() ^ {key: tuple(value.shape) for key, value in state.items()}.items()))
    if odd:
        raise UserError(
            f"the weights do not fit {name}: {len(odd)} missing, unexpected or of another shape, as {odd[0]}"
        )
    module.load_state_dict(state, strict=False, assign=True)
