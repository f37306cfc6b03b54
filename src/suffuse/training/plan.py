"""What a run is asked for: how long and how fast, and what a stage must bring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from suffuse.data.stream import Broken
from suffuse.errors import SuffuseError
from suffuse.training.draw import Draw

COUNTS = (
    "steps",
    "batch",
    "warmup",
    "save_every",
    "sample_every",
    "keep",
    "log_every",
    "accumulate",
)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    batch: int  # images a step, over all processes
    lr: float = 1e-3
    warmup: int = 200  # steps of linear growth
    cooldown: float = 0.3  # share of the steps over which the rate falls linearly to zero
    weight_decay: float = 0.01
    decayed: Literal["all", "matrices"] = "all"  # weights that it is for; else not gains and biases
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the moving average
    save_every: int = 500
    sample_every: int = 500
    keep: int = 2  # checkpoints kept, besides the best
    log_every: int = 10  # steps a point of the curves is the mean of
    accumulate: int = 1  # parts that a batch is taken through the networks in
    precision: Literal["float32", "bfloat16"] = "float32"  # of products; weights are float32
    recompute: bool = False  # activations in the backward pass: a third slower, far less memory
    workers: int = 0  # processes that prepare batches ahead

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if value < 1:
                raise SuffuseError(f"{name} must be at least 1, not {value}")

    def rate(self, step: int) -> float:
        """The learning rate of `step`: up, level, down. A level middle lets a run be extended."""
        down = max(1, int(self.steps * self.cooldown))
        return self.lr * min(1.0, (step + 1) / self.warmup, (self.steps - step) / down)


class Stage(Protocol):
    """What is trained."""

    nets: nn.ModuleDict

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Any:
        """The data of a step, the same whenever it is asked for; only `rows` of it if given."""

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """A scalar to descend, and numbers to report. Noise comes from `training.draw`."""

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Writes a picture that shows what `nets` can do by now."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        """Writes what the next stage or `suffuse.load` opens."""


@runtime_checkable
class Grouped(Protocol):
    """A stage with several optimizers, as one that trains against a discriminator.

    Its `loss(batch, generator, group)` is called for each group in order, and that group alone
    makes a step. A loss that needs no gradient is a group that waits for its time.
    """

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The weights of each optimizer."""

    def loss(
        self, batch: Any, generator: torch.Generator, group: str
    ) -> tuple[Tensor, dict[str, float]]: ...


@runtime_checkable
class Fed(Protocol):
    """A stage whose pictures come from a `data.stream.Stream`."""

    stream: Any


@runtime_checkable
class Placed(Protocol):
    """A stream that is read in order: checkpoints keep its place, which spares reading to it."""

    def position(self) -> dict[str, Any] | None: ...
    def seek(self, position: dict[str, Any]) -> None: ...


@runtime_checkable
class Fallible(Protocol):
    """A stream that passes over pictures that it cannot read."""

    broken: Broken


@runtime_checkable
class Scored(Protocol):
    """A stage that can tell which checkpoint is best; else the mean loss of its steps does."""

    def score(self, nets: nn.ModuleDict) -> float | None:
        """Lower is better; None where nothing was held out to tell by."""


def groups_of(stage: Stage) -> dict[str, list[nn.Parameter]]:
    """The weights of each optimizer that are trained at all."""
    groups = {"nets": list(stage.nets.parameters())}
    if isinstance(stage, Grouped):
        groups = stage.groups()
    return {name: [w for w in group if w.requires_grad] for name, group in groups.items()}


class Objective(nn.Module):
    """A stage's loss as a forward pass, which is where DDP and FSDP take hold."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.nets, self.stage = stage.nets, stage

    def forward(self, batch: Any, draw: Draw, group: str) -> tuple[Tensor, dict[str, float]]:
        if isinstance(self.stage, Grouped):
            return self.stage.loss(batch, draw, group)
        return self.stage.loss(batch, draw)
