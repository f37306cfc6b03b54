"""DDPM: draw from the posterior of each step (arXiv 2006.11239)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.posterior import Posterior, Variance, posterior, reverse_variance
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step


def ddpm(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    variance: Variance = "small",
    last_noise: bool = False,
) -> Iterator[Step]:
    """Algorithm 2, on any grid: the posterior's mean (eq. 7), and noise.

    `variance` is the posterior's own (`small`), that of the forward step (`large`), what the
    network says (`learned`), or between the first two where it says (`learned_range`); see
    `reverse_variance`. A classifier's gradient moves the mean by variance times gradient (arXiv
    2105.05233, algorithm 1). The last step draws no noise unless `last_noise`; diffusers'
    `scheduling_ddpm.py` draws some wherever the last index is not 0, which shows with `large`.

    Raises `SuffuseError` when the variance is learned and the network does not tell it.
    """
    before: Posterior | None = None
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        step = posterior(now, then)
        x = step.x0_weight * p.x0 + step.x_weight * x
        draws = last_noise or i < len(grid) - 1
        if draws or p.score is not None:
            floor = _floor(step, before, variance, last_noise)
            var, _ = reverse_variance(variance, step, floor, p.var)
            if p.score is not None:
                x = x + var * p.score
            if draws:
                x = x + var.sqrt() * noise()
        before = step
        yield Step(i, x, p.x0)


def _floor(step: Posterior, before: Posterior | None, variance: Variance, noisy: bool) -> Tensor:
    """What stands in for the posterior variance of a step that ends on the clean image."""
    if noisy:  # diffusers' choice: next to nothing, and for `large` the step's beta
        return step.beta if variance == "large" else torch.full_like(step.beta, 1e-20)
    # guided-diffusion's: that of the step before. A chain of one step has none, and draws nothing.
    return before.var if before is not None else torch.full_like(step.beta, 1e-20)
