"""The training loop: one for every stage.

A stage brings its networks, its batches and its loss; the loop brings the optimizer, the moving
average, checkpoints and the report. The batch of a step depends on the seed and the step alone, so
a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from suffuse.errors import SuffuseError

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    batch: int
    lr: float = 1e-3
    warmup: int = 200  # steps of linear growth
    cooldown: float = 0.3  # share of the steps over which the rate falls linearly to zero
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the moving average
    save_every: int = 500
    sample_every: int = 500

    def rate(self, step: int) -> float:
        """The learning rate of `step`: up, level, down. A level middle lets a run be extended."""
        down = max(1, int(self.steps * self.cooldown))
        return self.lr * min(1.0, (step + 1) / self.warmup, (self.steps - step) / down)


class Stage(Protocol):
    """What is trained."""

    nets: nn.ModuleDict

    def batch(self, step: int, size: int, seed: int) -> Any:
        """The data of a step, the same whenever it is asked for."""

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """A scalar to descend, and numbers to report."""

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Writes a picture that shows what `nets` can do by now."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        """Writes what the next stage or `suffuse.load` opens."""


class Report(NamedTuple):
    step: int
    steps: int
    loss: float
    numbers: dict[str, float]
    images_per_second: float
    seconds_left: float


def ema_update(ema: nn.Module, net: nn.Module, step: int, decay: float) -> None:
    """`ema` moves towards `net`; early steps move it more, so it never remembers the start."""
    keep = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        mine: list[Tensor] = list(ema.parameters())
        theirs: list[Tensor] = list(net.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - keep)


def train(
    stage: Stage,
    plan: Plan,
    output: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    report: Callable[[Report], None] = lambda _: None,
) -> None:
    """Trains `stage` and leaves `output/model`, `output/samples` and `output/checkpoint.pt`.

    Raises SuffuseError when `output` holds a run and `resume` is not asked for, when there is
    nothing to resume, and when the loss is no longer finite.
    """
    nets = stage.nets
    ema = deepcopy(nets).requires_grad_(False)
    params = [p for p in nets.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        params, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay, fused=True
    )
    check_output(output, resume)
    asked = {"seed": seed, "batch": plan.batch}
    step = _restore(output / CHECKPOINT, nets, ema, optimizer, asked) if resume else 0
    (output / "samples").mkdir(parents=True, exist_ok=True)
    start, first, shown, since = time.monotonic(), step, step, time.monotonic()
    try:
        while step < plan.steps:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            loss, numbers = stage.loss(stage.batch(step, plan.batch, seed), generator)
            if not torch.isfinite(loss):
                raise SuffuseError(
                    f"the loss is {loss.item()} at step {step}: lower the learning rate and go on "
                    f"from {output / CHECKPOINT} with --resume"
                )
            loss.backward()
            numbers["norm"] = float(nn.utils.clip_grad_norm_(params, plan.clip))
            optimizer.step()
            optimizer.zero_grad()
            ema_update(ema, nets, step, plan.ema)
            step += 1
            if time.monotonic() - since > 1 or step == plan.steps:
                now = time.monotonic()
                speed = (step - shown) * plan.batch / (now - since)
                left = (now - start) / (step - first) * (plan.steps - step)
                report(Report(step, plan.steps, loss.item(), numbers, speed, left))
                shown, since = step, now
            if step % plan.sample_every == 0 or step == plan.steps:
                stage.sample(ema, output / "samples" / f"{step:07d}.png")
            if step % plan.save_every == 0:
                _save(output, step, nets, ema, optimizer, asked)
    finally:
        if step > first:
            _save(output, step, nets, ema, optimizer, asked)
    stage.export(ema, output / "model")


def _save(
    output: Path,
    step: int,
    nets: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    asked: dict[str, int],
) -> None:
    """Under a temporary name first: a checkpoint is whole or absent."""
    state = {
        "step": step,
        "asked": asked,
        "nets": nets.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    temporary = output / f"{CHECKPOINT}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(output / CHECKPOINT)


def check_output(output: Path, resume: bool) -> None:
    """Refuses to write over a run, and to resume where there is none. Raises SuffuseError."""
    exists = (output / CHECKPOINT).exists()
    if exists and not resume:
        raise SuffuseError(f"{output} already holds a run: add --resume, or name another --output")
    if resume and not exists:
        raise SuffuseError(f"there is nothing to resume: {output / CHECKPOINT} does not exist")


def _restore(
    path: Path,
    nets: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    asked: dict[str, int],
) -> int:
    """Puts a checkpoint's state in place and returns its step.

    Raises SuffuseError where going on would not be the same run: another seed or batch, another
    network, a damaged file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        nets.load_state_dict(state["nets"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        begun = state["asked"]
    except (RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
        line = str(error).splitlines()[0]
        raise SuffuseError(f"{path} is damaged or of another preset: {line}") from error
    if begun != asked:
        flags = " ".join(f"--{name} {value}" for name, value in begun.items())
        raise SuffuseError(f"the run in {path.parent} was begun with {flags}: resume it with these")
    return int(state["step"])
