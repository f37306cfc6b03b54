"""The training loop: one for every stage, on one process or many.

A stage brings its networks, its batches and its losses; the loop brings the optimizers, the moving
average, checkpoints and the report. Batch, noise and every other random number of a step depend on
the seed and the step alone, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suffuse.data.loader import batches
from suffuse.errors import SuffuseError
from suffuse.networks.gradients import for_training
from suffuse.training import checkpoint
from suffuse.training.checkpoint import check_output
from suffuse.training.distributed import Average, Team, whole
from suffuse.training.draw import Draw
from suffuse.training.interrupt import Interrupt
from suffuse.training.memory import recompute, to_device
from suffuse.training.plan import (
    Fallible,
    Fed,
    Objective,
    Placed,
    Plan,
    Scored,
    Stage,
    groups_of,
)
from suffuse.training.watch import Clock, Report, Watch


def _quiet(_: Any) -> None: ...


def train(
    stage: Stage,
    plan: Plan,
    output: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    report: Callable[[Report], None] = _quiet,
    note: Callable[[str], None] = _quiet,
    team: Team | None = None,
) -> None:
    """Trains `stage` and leaves `output`/checkpoints, samples, tensorboard and, last, model.

    Ctrl-C and SIGTERM save a checkpoint after the step under way and raise KeyboardInterrupt.
    Raises SuffuseError when `output` holds a run and `resume` is not asked for, when there is
    nothing to resume, and when the loss is no longer finite.
    """
    check_output(output, resume)
    run = Run(stage, plan, output, seed, team or Team(), note)
    run.begin(resume)
    main, clock = run.team.main, Clock(plan.steps, plan.batch, run.step, report)
    with Watch(output, run.step, main, note) as watch, Interrupt(run.note) as interrupt:
        try:
            for parts in run.data():
                numbers = run.descend(parts)
                stop = run.team.mean([float(interrupt.asked)])[0] > 0
                if main:
                    clock.tick(run.step, numbers)
                    if run.step % plan.log_every == 0:
                        watch.scalars(run.step, clock.means())
                if run.step % plan.sample_every == 0 or run.step == plan.steps:
                    watch.picture(run.step, run.sample())
                if run.step % plan.save_every == 0 or run.step == plan.steps or stop:
                    run.save(must=stop or run.step == plan.steps)
                    watch.scalars(run.step, run.scores)
                if stop:
                    raise KeyboardInterrupt
        except Exception:
            run.rescue()
            raise
    nets = run.ema.collect()
    if main:
        stage.export(nets, output / "model")
    run.team.wait()


class Run:
    """The state of a run and what changes it."""

    def __init__(
        self,
        stage: Stage,
        plan: Plan,
        output: Path,
        seed: int,
        team: Team,
        note: Callable[[str], None],
    ):
        if plan.batch % (team.size * plan.accumulate):
            raise SuffuseError(
                f"a batch of {plan.batch} cannot be shared by {team.size} processes in "
                f"{plan.accumulate} parts: make it a multiple of {team.size * plan.accumulate}"
            )
        self.stage, self.plan, self.output, self.seed = stage, plan, output, seed
        self.team, self.note = team, note if team.main else _quiet
        self.half = plan.precision == "bfloat16"
        self.step, self.saved, self.whole = 0, 0, True
        self.stream = stage.stream if isinstance(stage, Fed) else None
        self.best: tuple[float, int] | None = None  # score and step
        self.by = "loss"  # or "score": what the best was found by
        self.scores: dict[str, float] = {}  # of the last checkpoint
        self.losses: list[float] = []  # since the last checkpoint
        self.ema = Average(stage.nets)

    def begin(self, resume: bool) -> None:
        """From the first step or from the last checkpoint; places networks on the device."""
        path = None
        if resume:
            state, path, damaged = checkpoint.newest(self.output, self.note)
            checkpoint.check_asked(state, path, self._asked())
            checkpoint.restore_nets(state, path, self.stage.nets, self.ema.nets)
        for_training(self.stage.nets)
        if self.plan.recompute:
            recompute(self.stage.nets)
        self.model = self.team.wrap(Objective(self.stage))
        self.ema.follow(self.stage.nets, self.team)
        self.weights = groups_of(self.stage)
        self.optimizers = {name: self._optimizer(w) for name, w in self.weights.items()}
        if path:
            for name, optimizer in self.optimizers.items():
                checkpoint.restore_optimizer(state, path, name, optimizer)
            self.step = self.saved = int(state["step"])
            self.best, self.by = state.get("best"), state.get("by", "loss")
            if isinstance(self.stream, Placed) and state.get("position"):
                self.stream.seek(state["position"])
        self.team.wait()  # until every process has read what it needs
        if self.team.main:
            if path:
                checkpoint.set_aside(damaged)
            (self.output / "samples").mkdir(parents=True, exist_ok=True)

    def _optimizer(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        p = self.plan
        groups: list[dict[str, Any]] = [{"params": weights}]
        if p.decayed == "matrices":
            groups = [
                {"params": [weight for weight in weights if weight.ndim > 1]},
                {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
            ]
        return torch.optim.AdamW(
            groups, lr=p.lr, betas=p.betas, weight_decay=p.weight_decay, fused=True
        )

    def data(self) -> Iterator[list[Any]]:
        """This process's share of every batch from here on, in parts."""
        plan = self.plan
        return batches(self._share, self.step, plan.steps, plan.workers, stream=self.stream)

    def _share(self, step: int) -> list[Any]:
        shares = map(self._rows, range(self.plan.accumulate))
        return [self.stage.batch(step, self.plan.batch, self.seed, rows) for rows in shares]

    def _rows(self, part: int) -> slice:
        """The rows of the batch in one part of this process's share."""
        size = self.plan.batch // (self.team.size * self.plan.accumulate)
        start = (self.team.rank * self.plan.accumulate + part) * size
        return slice(start, start + size)

    def descend(self, parts: list[Any]) -> dict[str, float]:
        """A step of every optimizer in turn; returns its numbers, the means of all processes."""
        # For layers that draw by themselves, such as dropout: a place in one sequence, as all else.
        torch.manual_seed((self.seed * 1_000_003 + self.step) * self.team.size + self.team.rank)
        parts = [to_device(part, self.team.device) for part in parts]
        numbers: dict[str, float] = {}
        for name, optimizer in self.optimizers.items():
            prefix = f"{name} " if numbers else ""  # the first group's loss is the run's
            found, trains = self._backward(name, parts)
            if trains:
                found["norm"] = self.team.clip(self.weights[name], self.plan.clip)
            found = dict(zip(found, self.team.mean(list(found.values()))))
            if not math.isfinite(found["loss"] + found.get("norm", 0.0)):
                raise self._not_finite(parts, found["loss"])
            if trains:
                self.whole = False
                for group in optimizer.param_groups:
                    group["lr"] = self.plan.rate(self.step)
                optimizer.step()
            self.model.zero_grad()
            numbers |= {prefix + key: value for key, value in found.items()}
        self.ema.update(self.step, self.plan.ema)
        self.step, self.whole = self.step + 1, True
        self.losses.append(numbers["loss"])
        return numbers

    def _backward(self, name: str, parts: list[Any]) -> tuple[dict[str, float], bool]:
        """The gradient of a group's loss, its numbers, and whether there is any gradient."""
        for other, weights in self.weights.items() if len(self.weights) > 1 else ():
            for weight in weights:
                weight.requires_grad_(other == name)
        found: dict[str, float] = {}
        trains = True
        for i, part in enumerate(parts):
            draw = Draw(self.seed * 1_000_003 + self.step, self._rows(i), self.plan.batch)
            last = i == len(parts) - 1
            with nullcontext() if last else self.team.unsynced(self.model):
                with torch.autocast(self.team.device.type, torch.bfloat16, self.half):
                    loss, terms = self.model(part, draw, name)
                trains = loss.requires_grad
                if trains:
                    (loss / len(parts)).backward()
            for key, value in {"loss": loss.item(), **terms}.items():
                found[key] = found.get(key, 0.0) + value / len(parts)
        self.team.settle(self.model)
        return found, trains

    def _not_finite(self, parts: list[Any], loss: float) -> SuffuseError:
        path = self.output / f"not-finite-{self.step:07d}-{self.team.rank}.pt"
        kept = f"its batch is in {path}"
        try:
            torch.save({"step": self.step, "seed": self.seed, "batch": parts}, path)
        except (OSError, RuntimeError) as error:
            kept = f"its batch could not be saved ({error})"
        self.model.zero_grad()
        what = f"loss is {loss}" if not math.isfinite(loss) else "gradient is not finite"
        return SuffuseError(
            f"the {what} at step {self.step}, and {kept}: lower the learning rate and go on from "
            f"the last checkpoint with --resume"
        )

    def sample(self) -> Path:
        """Draws with the averaged weights; every process must take part."""
        nets = self.ema.collect()
        path = self.output / "samples" / f"{self.step:07d}.png"
        if self.team.main:
            temporary = path.with_suffix(".tmp.png")
            try:
                self.stage.sample(nets, temporary)
                if temporary.exists():  # some stages have nothing to show
                    temporary.replace(path)
            except OSError as error:  # a full disk costs a picture, not the run
                self.note(f"no sample at step {self.step}: {error}")
                temporary.unlink(missing_ok=True)
        return path

    def save(self, must: bool) -> None:
        """Every process must take part. A failure ends the run only where it `must` not be lost."""
        self.saved = self.step
        if self.team.main or self.team.sharded:
            state = self._state()
        if self.team.main:
            self._write(state, must)
        self.losses = []
        if isinstance(self.stream, Fallible) and (notice := self.stream.broken.notice()):
            self.note(notice)

    def _write(self, state: checkpoint.State, must: bool) -> None:
        best = (self._judge(), self.step)
        if self.best is None or best < self.best:
            self.best = best
        state |= {"best": self.best, "by": self.by}
        try:
            checkpoint.save(self.output, state)
        except OSError as error:
            older = checkpoint.checkpoints(self.output)
            line = f"cannot save step {self.step}: {error}"
            if must:
                kept = f"{older[-1]} is whole" if older else "there is no older checkpoint"
                raise SuffuseError(f"{line}; {kept}") from error
            self.note(f"{line}; going on, and trying again at the next checkpoint")
            return
        checkpoint.prune(self.output, self.plan.keep, self.best[1])

    def _judge(self) -> float:
        """The stage's score, else the mean loss since the last checkpoint; lower is better."""
        score = self.stage.score(self.ema.nets) if isinstance(self.stage, Scored) else None
        by = "loss" if score is None else "score"
        if by != self.by:  # an older version had no scores: the two do not compare
            self.by, self.best = by, None
        self.scores = {} if score is None else {"score": score}
        return sum(self.losses) / max(1, len(self.losses)) if score is None else score

    def rescue(self) -> None:
        """Saves on the way out of an error, if the weights are those of a whole step."""
        alone = self.team.size == 1 or (self.team.main and not self.team.sharded)
        if self.whole and alone and self.step > self.saved:
            try:
                checkpoint.save(self.output, self._state())
            except OSError as error:
                self.note(f"cannot save step {self.step}: {error}")

    def _state(self) -> checkpoint.State:
        return {
            "step": self.step,
            "asked": self._asked(),
            "nets": whole(self.stage.nets.state_dict()),
            "ema": whole(self.ema.collect().state_dict()),
            "optimizers": {name: whole(o.state_dict()) for name, o in self.optimizers.items()},
            "position": self.stream.position() if isinstance(self.stream, Placed) else None,
            "best": self.best,
            "by": self.by,
        }

    def _asked(self) -> dict[str, int]:
        return {"seed": self.seed, "batch": self.plan.batch}
