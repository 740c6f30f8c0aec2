"""Parity with the authors' code: an adapter's network on a kit's weights and inputs must return the kit's arrays.

The weights are made from names and shapes (`models.parity.synthetic`), so no trained checkpoint is needed; whoever
reproduces the arrays computes what the authors' code computes, given the same checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from time import monotonic
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

import models
from models.common.backbone import Backbone, Batch, mode_for_channels, state_shapes
from models.common.card import Card
from models.common.errors import UserError
from models.common.weights import load, parameters_on_meta, state_dict
from models.parity import Run, kit, synthetic


@dataclass(frozen=True)
class Outcome:
    """What became of one kit: its failures in words, and the array that came closest to its limit or passed it by most.

    `error` and `limit` of the array `worst` are relative to its largest stored value; `rtol` is the kit's.
    """

    kit: str
    failures: tuple[str, ...]
    worst: str
    error: float
    limit: float
    rtol: float
    n_arrays: int
    n_cases: int
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.failures

    def line(self, width: int = 0) -> str:
        """One line for the terminal; the first failure stands for all."""
        size = f"{self.n_cases} cases, {self.n_arrays} arrays, {self.seconds:.0f} s"
        if self.passed:
            return f"{self.kit:<{width}}  pass <= {self.rtol:g}   (worst {self.error:.1e} of {self.worst}; {size})"
        return f"{self.kit:<{width}}  FAIL {self.failures[0]}   ({len(self.failures)} failures; {size})"


def kits(path: Path) -> list[Path]:
    """The kit at `path`, or every kit in that folder. Raises `UserError` where there is none."""
    return kit.find(path)


def verify(labels: Sequence[str] | None, path: Path, print_line: Callable[[str], object] = print) -> int:
    """Run the kits of these models (None: of every model here) and print one line each; 0 if all pass, else 1.

    `path` is a kit or a folder of kits. For None, a kit of a model that is not here fails nothing and has its line.
    Raises `UserError` for a missing or malformed kit, for a model without one, and where no kit is of a model here.
    """
    adapters = {folder: kit.read_adapter(folder) for folder in kits(path)}
    jobs: dict[Path, str] = {}
    for label in labels if labels is not None else every_label():
        card = models.card(label)
        mine = [folder for folder in adapters if adapters[folder] in (card.label, f"{card.name}:{card.variant}")]
        if labels is not None and not mine:
            raise UserError(f"no parity kit of {card.label} in {str(path)!r}; it holds {', '.join(adapters.values())}")
        jobs |= dict.fromkeys(mine, label)
    if not jobs:
        raise UserError(f"no parity kit in {str(path)!r} is of a model here; it holds {', '.join(adapters.values())}")
    facts = {folder: kit.read(folder) for folder in adapters if folder in jobs}
    width = max(len(folder.resolve().name) for folder in adapters)
    passed = True
    for folder, adapter in adapters.items():
        if folder in jobs:
            outcome = run(facts[folder], jobs[folder])
            passed &= outcome.passed
            print_line(outcome.line(width))
        elif labels is None:
            print_line(f"{folder.resolve().name:<{width}}  skipped: no adapter {adapter}")
    return 0 if passed else 1


def every_label() -> list[str]:
    """Every model here in every variant."""
    return [f"{name}:{variant}" for name in models.names() for variant in models.adapter(name).CARD.variants]


def run_kit(path: Path, model: str | None = None) -> Outcome:
    """Read the kit at `path` and run it on `model` (None: the adapter that it names; a path to a .py file will do)."""
    facts = kit.read(path)
    return run(facts, model or facts.adapter)


def run(facts: kit.Kit, model: str) -> Outcome:
    """Run every case of a kit on `model`. Raises `UserError` for an unknown model.

    A network that does not take the kit's weights, an argument that is not understood and an array that is not mapped
    are failures, as a difference is; the first one is told.
    """
    started = monotonic()
    card = models.card(model)
    substitute = getattr(_parity(card.name), "Network", None)
    network = substitute(card) if substitute else Network(model, card)
    failures: list[str] = []
    worst = ("", 0.0, facts.rtol)
    for case in facts.cases:
        try:
            found = network.run(case)
        except UserError as error:
            failures.append(f"{case.name}: {error}")
            continue
        for name, stored in case.arrays.items():
            where = f"{case.name}/{name}"
            if name not in found:
                failures.append(f"{where} has no mapping in models/parity/{card.name}.py")
            elif found[name].shape != stored.full:
                failures.append(f"{where} has shape {found[name].shape}, the authors' {stored.full}")
            else:
                error, limit = compare(stored.cut(found[name]), stored.values, facts)
                if not error <= limit:  # written so that NaN fails
                    failures.append(f"{where} is off by {error:.1e} of its largest value, allowed {limit:.1e}")
                if not error / limit <= worst[1] / worst[2]:
                    worst = (where, error, limit)
    return Outcome(
        kit=facts.name,
        failures=tuple(failures),
        worst=worst[0],
        error=worst[1],
        limit=worst[2],
        rtol=facts.rtol,
        n_arrays=sum(len(case.arrays) for case in facts.cases),
        n_cases=len(facts.cases),
        seconds=monotonic() - started,
    )


def compare(ours: np.ndarray, theirs: np.ndarray, facts: kit.Kit) -> tuple[float, float]:
    """Largest difference and the one allowed, both relative to the largest stored value (absolute if all are 0)."""
    largest = float(np.abs(theirs).max())
    error = float(np.abs(ours - theirs).max())
    limit = facts.atol + facts.rtol * largest
    return (error / largest, limit / largest) if largest else (error, limit)


class Network:
    """An adapter's network, built once per list of keys and filled again only where a case changes the weights."""

    def __init__(self, model: str, card: Card) -> None:
        self.build = models.adapter(models.split_label(model)[0]).build
        self.card = card
        self.parity = _parity(card.name)
        self.keys: tuple[synthetic.Key, ...] = ()
        self.changes: object = None
        self.state: dict[str, Tensor] = {}
        self.filled: dict[str, Tensor] = {}
        self.backbone = Backbone(card)

    def run(self, case: kit.Case) -> dict[str, np.ndarray]:
        """Every array that can be named for a case, by its name in the kit, as full float32 arrays."""
        self.fill(case)
        with torch.no_grad():
            found = self.call(case) if "function" in case.args else self.encode(case)
        return {name: array.float().numpy() for name, array in found.items()}

    def call(self, case: kit.Case) -> dict[str, Tensor]:
        """The arrays of a case that names a function of the authors and makes no pass through the network."""
        function = getattr(self.parity, "FUNCTIONS", {}).get(case.args["function"])
        if function is None:
            raise UserError(
                f"function {case.args['function']!r} is not understood by models/parity/{self.card.name}.py"
            )
        return function(self.backbone, make_images(case.inputs), case.args)

    def encode(self, case: kit.Case) -> dict[str, Tensor]:
        """The arrays of a pass through the network, with what the case's arguments give beside the images."""
        batch = make_batch(self.card, case.inputs)
        batch = getattr(self.parity, "prepare", lambda model, batch, args: batch)(self.backbone, batch, case.args)
        for name, value in case.args.items():
            check = getattr(self.parity, "ARGUMENTS", {}).get(name)
            if check is None:
                raise UserError(f"argument {name!r} is not understood by models/parity/{self.card.name}.py")
            if not check(self.backbone, batch, value):
                raise UserError(f"argument {name} = {value!r} is not true of what was built")
        recorded = getattr(self.parity, "recorded", lambda model: {})(self.backbone)
        with record(recorded) as outputs:
            stages, vectors = self.backbone.encode(batch)
            found = {f"stage{number}": stage for number, stage in enumerate(stages, 1)} | {"pooled": vectors["default"]}
            further = getattr(self.parity, "arrays", lambda model, run: {})
            run = Run(stages, vectors, outputs, case, batch, self.filled)
            return {**further(self.backbone, run), **found}

    def fill(self, case: kit.Case) -> None:
        """Bring the network to the weights of this case."""
        if self.keys != case.keys:
            values = synthetic.state_dict(case.keys)
            self.state = {name: torch.from_numpy(value) for name, value in values.items()}
            with parameters_on_meta():
                self.backbone = self.build(self.card, state_shapes(state_dict(self.state, self.card.checkpoint)))
            self.keys, self.changes = case.keys, None
        changes = (dict(case.scales), {name: value.tolist() for name, value in case.constants.items()})
        if changes != self.changes:
            scaled = {name: self.state[name] * float(np.float32(scale)) for name, scale in case.scales.items()}
            constants = {name: torch.from_numpy(value) for name, value in case.constants.items()}
            self.filled = self.state | scaled | constants
            load(self.backbone, state_dict(self.filled, self.card.checkpoint))
            self.backbone.freeze()
            self.changes = changes


def make_images(inputs: Mapping[str, Mapping[str, object]]) -> dict[str, Tensor]:
    """The inputs of a case, by their names in the kit."""
    return {name: torch.from_numpy(synthetic.image(dict(spec))) for name, spec in inputs.items()}


def make_batch(card: Card, inputs: Mapping[str, Mapping[str, object]]) -> Batch:
    """The batch of a case: `image` goes to the sensor that takes so many bands, any other input to that of its name."""
    images = make_images(inputs)
    if not images:
        raise UserError(f"a case without inputs is not understood by models/parity/{card.name}.py")
    mode = mode_for_channels(card, {name: image.shape[1] for name, image in images.items()})
    return Batch({mode.sensor if name == "image" else name: image for name, image in images.items()}, mode.name)


@contextmanager
def record(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Keep what each of these modules puts out while the context lasts, by name."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _parity(name: str) -> ModuleType | None:
    """models/parity/<name>.py, if there is one."""
    return import_module(f"models.parity.{name}") if util.find_spec(f"models.parity.{name}") else None
