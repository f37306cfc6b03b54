"""Exact log-likelihood by the probability-flow ODE (arXiv 2011.13456, section 4.3).

Along `dx / dt = v(x, t)` the log-density changes by the divergence of v (the instantaneous change
of variables, arXiv 1806.07366, theorem 1), so that

    log p_0(x) = log p_1(x(1)) + integral of div v(x(t), t) dt                    (paper, eq. 39)

and the divergence is estimated without bias as the mean of `probe . J probe`, J the Jacobian of v,
for random probes of unit covariance (Skilling, Hutchinson; eq. 40).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from suffuse.diffusion.ode import Array, flow, solve, to_array, to_tensor
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise
from suffuse.diffusion.sde import SDE, prior_log_prob
from suffuse.errors import SuffuseError


class Likelihood(NamedTuple):
    log_prob: Tensor  # (B,) float64, nats
    latent: Tensor  # (B,C,H,W), where the images end at t = 1
    steps: int  # of the solver
    evaluations: int  # of the network, each with one gradient a probe


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    sde: SDE,
    probes: Sequence[Tensor],
    *,
    eps: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Likelihood:
    """Log-density of images `x (B, C, H, W)`, taken to lie at time `eps`.

    `probes` are of the shape of x; each more of them lowers the estimate's variance. Score_sde
    takes one, and the same at all times, which is what makes an adaptive solver possible.

    Raises `SuffuseError` without probes, without SciPy, or when the ODE cannot be solved.
    """
    if not probes:
        raise SuffuseError("the likelihood's divergence needs at least one probe")

    def slope(t: float, y: Array) -> Array:
        at = to_tensor(y[: x.numel()], x)
        d, divergence = _with_divergence(denoiser, at, sde, t, probes)
        return np.concatenate([to_array(d), to_array(divergence)])

    begin = np.concatenate([to_array(x), np.zeros(len(x))])
    # There is at least one step: a span of times is never empty.
    for steps, state in enumerate(solve(slope, begin, eps, 1.0, rtol, atol), 1):  # noqa: B007
        pass
    latent = to_tensor(state.y[: x.numel()], x)
    change = torch.from_numpy(state.y[x.numel() :])  # (B,)
    log_prob = prior_log_prob(sde, latent.cpu().double()) + change
    return Likelihood(log_prob, latent, steps, state.evaluations)


def _with_divergence(
    denoiser: Denoiser, x: Tensor, sde: SDE, t: float, probes: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The flow at x, (B, C, H, W), and the estimate of its divergence, (B,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        d, _ = flow(denoiser, x, sde, torch.tensor(t, dtype=torch.float64))
        total = x.new_zeros(len(x))  # (B,)
        for k, probe in enumerate(probes):
            # A vector-Jacobian product: one backward pass, whatever the number of pixels.
            (product,) = torch.autograd.grad(d, x, probe, retain_graph=k < len(probes) - 1)
            total = total + (product * probe).flatten(1).sum(1)
    return d.detach(), total / len(probes)


def probe(noise: Noise, kind: Literal["rademacher", "gaussian"] = "rademacher") -> Tensor:
    """A probe (B, C, H, W): normal, or signs alone, which estimate with less variance."""
    draw = noise()
    return draw if kind == "gaussian" else torch.where(draw < 0, -1.0, 1.0).to(draw)


# ---- bits --------------------------------------------------------------------------------------


def bits_per_dim(
    log_prob: Tensor, dims: int, low: float = -1.0, high: float = 1.0, levels: int = 256
) -> Tensor:
    """Bits a pixel and channel from a log-density in nats, (B,) to (B,).

    Images of `levels` grey levels were spread over [low, high]: a level is `(high - low) / levels`
    wide, and its probability that times the density. For 256 that adds 7 bits in [-1, 1] and 8 in
    [0, 1], score_sde's offset.
    """
    return -log_prob / (dims * math.log(2)) + math.log2(levels / (high - low))


def dequantise(
    images: Tensor, u: Tensor, low: float = -1.0, high: float = 1.0, levels: int = 256
) -> Tensor:
    """Grey levels 0 .. `levels - 1` with uniform `u` in [0, 1) added, spread over [low, high].

    The mean log-density of these is a lower bound of the log-probability of the levels
    (arXiv 1511.01844, section 3.1).
    """
    return low + (high - low) * (images.to(u) + u) / levels
