"""A pretraining method on mmengine's Runner: the model it sees, the optimiser's step, the loop that counts steps.

A step is one update of the weights by one global batch, however many processes share it and however many parts
(gradient accumulation) it comes in. Everything that happens in a step follows from its number, so that a training that
stopped goes on where it was without replaying anything.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from models.common.errors import UserError
from models.pretraining.builder import ParameterGroup, Pretraining, Progress

CLIP_MODES = ("per-tensor", "global")
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Plan(NamedTuple):
    """How long a training is: `total` steps, `epoch_steps` of them to an epoch, each in `accumulate` parts."""

    total: int
    epoch_steps: int
    accumulate: int
    seed: int


class StepSeed(NamedTuple):
    """What torch's generators are seeded with before a step; a number that all of seed, step and rank enter."""

    seed: int
    step: int
    rank: int

    def apply(self) -> None:
        """Seed the global generators of CPU and GPU: drop path and dropout then depend on nothing that was before."""
        torch.manual_seed(int(np.random.SeedSequence(list(self)).generate_state(1, np.uint64)[0] >> np.uint64(1)))


class MethodModel(BaseModel):
    """A `Pretraining` as mmengine's model: `forward(views, progress, mode) -> {"loss/<name>": scalar}`."""

    def __init__(self, method: Pretraining) -> None:
        super().__init__(BaseDataPreprocessor(non_blocking=True))
        self.method = method

    def init_weights(self) -> None:
        """No: mmengine would call every `init_weights` among the layers, and so undo what the method was given."""

    def forward(self, views: dict[str, Tensor], progress: Progress, mode: str = "loss") -> dict[str, Tensor]:
        """mmengine sums what has `loss` in its name."""
        return {f"loss/{name}": value for name, value in self.method(views, progress).items()}


class StepWrapper(OptimWrapper):
    """The optimiser's step in half, bfloat or full precision, with clipping per tensor or of all tensors together.

    `clip` is the largest 2-norm of a gradient; 0 leaves gradients alone. `per-tensor` is DINO's and DEO's
    (`clip_gradients`: every tensor by its own norm), `global` torch's `clip_grad_norm_`. Groups with `frozen_epochs` get
    no update while `epoch`, which the loop sets, is below.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulate: int,
        clip: float,
        clip_mode: str,
        precision: str,
        device: torch.device,
    ) -> None:
        super().__init__(optimizer, accumulative_counts=accumulate)
        self.clip, self.clip_mode, self.device, self.dtype = clip, clip_mode, device, DTYPES[precision]
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.epoch = 0

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """mmengine counts parts of batches, our loop whole steps."""
        self._inner_count, self._max_counts = init_counts * self._accumulative_counts, -1

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and no synchronisation of gradients but for the last part of a step."""
        with (
            super().optim_context(model),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None),
        ):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Scaled under fp16."""
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Leave out what is frozen, unscale, clip, update."""
        for group in self.optimizer.param_groups:
            if self.epoch < group["frozen_epochs"]:
                for weights in group["params"]:
                    weights.grad = None
        self.scaler.unscale_(self.optimizer)
        clip_gradients([p for group in self.optimizer.param_groups for p in group["params"]], self.clip, self.clip_mode)
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only."""
        return {"optimiser": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self.optimizer.load_state_dict(state_dict["optimiser"])
        if state_dict["scaler"]:
            self.scaler.load_state_dict(state_dict["scaler"])


def clip_gradients(parameters: Sequence[Tensor], limit: float, mode: str) -> None:
    """Shrink gradients whose 2-norm exceeds `limit`, each by its own norm or all by their common one; 0: not at all.

    As the releases: g <- g limit / (|g| + 1e-6) where that factor is below 1.
    """
    gradients = [weights.grad for weights in parameters if weights.grad is not None]
    if not limit or not gradients:
        return
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    if mode == "global":
        norms = [torch.linalg.vector_norm(torch.stack(norms))] * len(gradients)
    for gradient, norm in zip(gradients, norms, strict=True):
        gradient.mul_((limit / (norm + 1e-6)).clamp(max=1))  # no question to the GPU, which would have to wait


def optimiser(groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
    """AdamW with torch's betas; learning rate and weight decay are set before every step by `hooks.Schedules`."""
    found = [
        {
            "params": [weights for _, weights in group.parameters],
            "decay": group.decay,
            "frozen_epochs": group.frozen_epochs,
        }
        for group in groups
        if group.parameters
    ]
    if not found:
        raise UserError("this recipe trains nothing: no parameter is in any group")
    return torch.optim.AdamW(found, lr=0.0, weight_decay=0.0)


class Batches(Protocol):
    """Batches of views (or a string that says why there is none) from the step that `start` is set to."""

    start: int

    def __iter__(self) -> Iterator[dict[str, Tensor] | str]: ...


class StepLoop(BaseLoop):
    """Steps from where a checkpoint left off to the end; hooks see `before_train_iter` and `after_train_iter`."""

    def __init__(self, runner: Runner, dataloader: Batches, plan: Plan, method: Pretraining) -> None:
        super().__init__(runner, dataloader)  # type: ignore[arg-type]
        self.batches, self.plan, self.method, self.step = dataloader, plan, method, 0

    # mmengine's names for what its runner and hooks ask a loop for.
    @property
    def iter(self) -> int:
        return self.step

    @property
    def max_iters(self) -> int:
        return self.plan.total

    @property
    def epoch(self) -> int:
        return self.step // self.plan.epoch_steps

    @property
    def max_epochs(self) -> int:
        return -(-self.plan.total // self.plan.epoch_steps)

    @property
    def progress(self) -> Progress:
        """Where the step that comes next stands."""
        return Progress(self.step, self.plan.total, self.plan.epoch_steps)

    def run(self) -> nn.Module:
        """Train; `before_train` is where a checkpoint sets `step`."""
        runner, wrapper = self.runner, wrapper_of(self.runner)
        runner.call_hook("before_train")
        wrapper.initialize_count_status(runner.model, self.step, self.plan.total)
        self.batches.start = self.step
        batches = iter(self.batches)
        while self.step < self.plan.total:
            progress, wrapper.epoch = self.progress, self.epoch
            runner.model.train()
            runner.call_hook("before_train_iter", batch_idx=self.step, data_batch=None)
            StepSeed(self.plan.seed, self.step, runner.rank).apply()
            parts = [self.part(next(batches), progress) for _ in range(self.plan.accumulate)]
            self.method.after_step(progress)
            self.step += 1
            outputs = {name: torch.stack([part[name].detach() for part in parts]).mean() for name in parts[0]}
            runner.call_hook("after_train_iter", batch_idx=progress.step, data_batch=None, outputs=outputs)
        runner.call_hook("after_train")
        return runner.model

    def part(self, views: dict[str, Tensor] | str, progress: Progress) -> dict[str, Tensor]:
        """One forward and backward pass -> losses by name, `loss` is their sum. A string says why there is no batch."""
        if isinstance(views, str):
            raise UserError(views)
        return self.runner.model.train_step({"views": views, "progress": progress}, self.runner.optim_wrapper)


def wrapper_of(runner: Runner) -> StepWrapper:
    """The optimiser of a runner that trains."""
    assert isinstance(runner.optim_wrapper, StepWrapper)
    return runner.optim_wrapper


class StepRunner(Runner):
    """mmengine's Runner on a device of our choice, without the files it writes about itself."""

    def __init__(self, *, device: torch.device, method: Pretraining, plan: Plan, **settings: Any) -> None:
        self.device, self.method, self.plan = device, method, plan
        super().__init__(train_cfg={}, **settings)

    def build_train_loop(self, loop: BaseLoop | dict) -> StepLoop:
        """Our loop, made here because mmengine would build it from a deep copy of the method."""
        return loop if isinstance(loop, StepLoop) else StepLoop(self, self._train_dataloader, self.plan, self.method)  # type: ignore[arg-type]

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """To the device; in a distributed training, wrapped so that gradients are averaged over the processes."""
        model = model.to(self.device)
        if not self.distributed:
            return model
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # mmengine's own words to torch
            return MMDistributedDataParallel(
                module=model,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=True,  # a student has both stems, whichever the recipe's losses reach
            )

    def dump_config(self) -> None:
        """No: recipe and settings stand in the provenance."""

    def _log_env(self, env_cfg: dict) -> None:
        """No: it asks compilers for their versions, which takes seconds."""
