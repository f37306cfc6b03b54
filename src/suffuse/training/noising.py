"""Which noise levels stage two trains at, how much each counts, and what the noise is like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from suffuse.diffusion.guidance import Context, Network
from suffuse.diffusion.loss import min_snr_weight, offset_noise, p2_weight, simple
from suffuse.diffusion.prediction import Kind
from suffuse.diffusion.schedule import Level, Schedule
from suffuse.diffusion.timesteps import (
    by_probability,
    logit_normal,
    second_moment,
    spread,
    to_steps,
)
from suffuse.errors import SuffuseError
from suffuse.networks.parallel import gathered
from suffuse.training.draw import normal, share

REMEMBERED = 10  # losses of each timestep, as in 2102.09672, section 3.3


@dataclass(frozen=True)
class Noising:
    """Where a training step looks; one row of a preset.

    timesteps: "uniform", "logit-normal" (2403.03206, eq. 19) or "importance" (2102.09672, eq. 18)
    power: uniform places are raised to it: the density of t grows with t^(1 / power - 1), so that
        less than 1 prefers noise
    mean, deviation: of the logit-normal
    weight: "none", "min-snr" (2303.09556) or "p2" (2204.00227)
    gamma: of min-SNR's cap (5 in the paper) or of P2's exponent (1)
    offset: of the noise, for each channel as a whole; 0.1 is usual
    """

    timesteps: Literal["uniform", "logit-normal", "importance"] = "uniform"
    power: float = 1.0
    mean: float = 0.0
    deviation: float = 1.0
    weight: Literal["none", "min-snr", "p2"] = "none"
    gamma: float | None = None
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.power <= 0 or self.deviation <= 0:
            raise SuffuseError("noising: power and deviation must be above 0")


class Levels(nn.Module):
    """Draws the timesteps of a batch; remembers losses where their density is learned.

    The memory is part of the networks' state, so that a resumed run draws as if never stopped.
    """

    losses: Tensor
    seen: Tensor

    def __init__(self, noising: Noising, schedule: Schedule):
        super().__init__()
        self.noising, self.schedule = noising, schedule
        if noising.timesteps == "importance":
            self.register_buffer("losses", torch.zeros(schedule.T, REMEMBERED))
            self.register_buffer("seen", torch.zeros(schedule.T, dtype=torch.int64))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Timesteps (B,) int64 on the CPU, spread evenly, and weights (B,) or None."""
        total, rows = share(generator, count)
        places = spread(torch.rand(total, generator=generator))[rows]
        if self.noising.timesteps == "logit-normal":
            places = logit_normal(places, self.noising.mean, self.noising.deviation)
            return to_steps(places, self.T), None
        if self.noising.timesteps == "importance" and bool((self.seen >= REMEMBERED).all()):
            return by_probability(places, second_moment(self.losses.cpu()))
        return to_steps(places**self.noising.power, self.T), None

    @property
    def T(self) -> int:
        return self.schedule.T

    def weight(self, level: Level, kind: Kind) -> Tensor | None:
        """What each image's loss counts, (B,)."""
        gamma = self.noising.gamma
        if self.noising.weight == "min-snr":
            return min_snr_weight(level, kind, 5.0 if gamma is None else gamma)
        if self.noising.weight == "p2":
            return p2_weight(level, kind, gamma=1.0 if gamma is None else gamma)
        return None

    def noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) where `like` is."""
        eps = normal(like.shape, generator).to(like)
        if self.noising.offset == 0:
            return eps
        shift = normal((*like.shape[:2], 1, 1), generator).to(like)
        return offset_noise(eps, shift, self.noising.offset)

    def evenly(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """For a score: timesteps (B,) int64 evenly over the schedule and noise (B, C, H, W), on the
        CPU; for as many images as `like` has they are the same every time."""
        t = ((torch.arange(len(like)) + 0.5) / len(like) * self.T).long()
        return t, torch.randn(like.shape, generator=torch.Generator().manual_seed(0))

    def losses_of(
        self,
        net: Network[Context],
        x0: Tensor,
        context: Context,
        kind: Kind,
        generator: torch.Generator,
        each: int | None = None,
    ) -> Tensor:
        """The weighted simple loss of scaled latents (B, C, h, w) at levels drawn for them, (B,).

        each: levels are spread anew over so many of them at a time; None for all
        """

        def objective(t: Tensor, eps: Tensor) -> Tensor:
            level = self.schedule.at(t)
            return simple(net, x0, context, level, eps, kind, self.weight(level, kind))

        return self.of(objective, x0, generator, each)

    def of(
        self,
        objective: Callable[[Tensor, Tensor], Tensor],
        x0: Tensor,
        generator: torch.Generator,
        each: int | None = None,
    ) -> Tensor:
        """`objective` of timesteps (B,) and noise (B, C, H, W) drawn for images like `x0`, (B,)."""
        parts = x0.split(each or len(x0))
        drawn = [self.draw(len(part), generator) for part in parts]
        t = torch.cat([steps for steps, _ in drawn])
        eps = torch.cat([self.noise(part, generator) for part in parts])
        losses = objective(t.to(x0.device), eps)
        self.remember(t, losses)
        corrections = [weight for _, weight in drawn if weight is not None]
        return losses * torch.cat(corrections).to(losses) if corrections else losses

    @torch.no_grad()
    def remember(self, t: Tensor, losses: Tensor) -> None:
        """Takes note of the losses (B,) at timesteps (B,), those of all processes."""
        if self.noising.timesteps != "importance":
            return
        steps = gathered(t.to(losses.device))
        for step, loss in zip(steps.tolist(), gathered(losses.detach().float()).tolist()):
            self.losses[step, int(self.seen[step]) % REMEMBERED] = loss
            self.seen[step] += 1
