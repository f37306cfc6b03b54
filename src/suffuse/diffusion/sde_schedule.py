"""An SDE as a schedule, for the grids and samplers that know levels and no time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suffuse.diffusion.schedule import Level
from suffuse.diffusion.sde import SDE
from suffuse.diffusion.spacing import Array


@dataclass(frozen=True)
class SDESchedule:
    """Index 0 is the time `eps` and T - 1 the time 1; real indices lie evenly between.

    `s = sigma / alpha` of an SDE with linear drift grows as `d log s^2 / dt = (g / sigma)^2`, so
    that `SDE.urgency` is `log s^2` up to a constant and its inverse the time of any s. The network
    is told that time exactly, on the grid or off it.
    """

    sde: SDE
    T: int = 1000
    eps: float = 1e-3

    def time(self, t: Tensor) -> Tensor:
        """The time in [eps, 1] of real indices."""
        return self.eps + (1 - self.eps) * t / max(self.T - 1, 1)

    def at(self, t: Tensor) -> Level:
        return self.sde.at(self.time(t.float()))

    def finite(self) -> SDESchedule:
        """Itself: there is signal left at t = 1."""
        return self

    def s(self, t: Array) -> Array:
        """`sigma / alpha`, increasing with t."""
        level = self.sde.at(self.time(torch.from_numpy(t.astype("float64"))))
        return (level.sigma / level.alpha).flatten().numpy()

    def label(self, t: Array, s: Array) -> Array:
        """What the network is told at the time of s."""
        return self.sde.at(self._time_of(torch.from_numpy(s))).label.numpy()

    def split(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The SDE's; the clean image at 0."""
        alpha = self.sde.at(self._time_of(s.flatten())).alpha.reshape(s.shape)
        alpha = torch.where(s > 0, alpha, torch.ones_like(alpha))
        return alpha, s * alpha

    def scale(self, level: Level) -> Tensor:
        """alpha: `x / alpha` is `x0 + s * eps` (arXiv 2206.00364)."""
        return level.alpha

    def _time_of(self, s: Tensor) -> Tensor:
        """The time whose `sigma / alpha` this is, (n,)."""
        one = torch.ones((), dtype=torch.float64)
        end = self.sde.at(one)
        constant = self.sde.urgency(one) - 2 * (end.sigma / end.alpha).log()
        return self.sde.when(2 * s.double().log() + constant)
