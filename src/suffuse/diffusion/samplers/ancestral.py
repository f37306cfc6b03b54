"""DDPM: draw from the posterior of each step (arXiv 2006.11239)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser, Prediction
from suffuse.diffusion.samplers.common import Noise, Step
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

Variance = Literal["small", "large", "learned_range"]


def ddpm(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    variance: Variance = "small",
    last_noise: bool = False,
) -> Iterator[Step]:
    """Algorithm 2, on any grid: the posterior's mean (eq. 7), and noise.

    `variance` is the posterior's own (`small`), that of the forward step (`large`), or between the
    two where the network says (`learned_range`, arXiv 2102.09672, eq. 15). The last step draws no
    noise unless `last_noise`; diffusers' `scheduling_ddpm.py` draws some wherever the last index
    is not 0, which shows with `large`.

    Raises `SuffuseError` when the variance is learned and the network does not tell it.
    """
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        shrink = now.alpha / then.alpha
        step = now.sigma**2 - (shrink * then.sigma) ** 2  # variance of the forward step
        x = then.alpha * step / now.sigma**2 * p.x0 + shrink * (then.sigma / now.sigma) ** 2 * x
        if last_noise or i < len(grid) - 1:
            x = x + _deviation(p, step, now, then, variance) * noise()
        yield Step(i, x, p.x0)


def _deviation(p: Prediction, step: Tensor, now: Level, then: Level, variance: Variance) -> Tensor:
    if variance == "large":
        return step.sqrt()
    small = ((then.sigma / now.sigma) ** 2 * step).clamp_min(1e-20)
    if variance == "small":
        return small.sqrt()
    if p.var is None:
        raise SuffuseError("learned_range variance needs a network that predicts its variance")
    share = (p.var + 1) / 2
    return torch.exp((share * step.log() + (1 - share) * small.log()) / 2)
