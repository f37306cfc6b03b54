"""Diffusion in continuous time: the SDEs of arXiv 2011.13456.

Data becomes noise along `dx = f(x, t) dt + g(t) dw`, t from 0 to 1. All three have a drift that is
linear in x, `f(x, t) = drift(t) x`, and so Gaussian marginals `x = alpha(t) x0 + sigma(t) eps`.
With `B(t)` the integral of beta from 0 to t:

            drift       diffusion g^2            alpha        sigma^2               paper
    VP      -beta / 2   beta                     exp(-B/2)    1 - exp(-B)           eq. 11, 33
    SubVP   -beta / 2   beta (1 - exp(-2 B))     exp(-B/2)    (1 - exp(-B))^2       eq. 12, 29
    VE      0           d sigma^2 / dt           1            sigma_min^2 r^(2 t)   eq. 9, 31

Times are tensors: `()` while sampling, `(B,)` while training; what comes back is `()` or
`(B, 1, 1, 1)` accordingly, in the dtype of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

LABELS = 999.0  # score_sde tells VP networks 999 t, the index of DDPM's step


class Transition(NamedTuple):
    """One step of the discretised SDE, `x' = scale x + noise z` (paper, eq. 44 and appendix E)."""

    scale: Tensor
    noise: Tensor
    back: Tensor | None  # deviation of the ancestral step that undoes it; None if nobody derived it


class SDE(Protocol):
    """What samplers, losses and likelihoods ask of an SDE; also a `Schedule` of levels."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior, the distribution that t = 1 is taken to have."""
        ...

    def at(self, t: Tensor) -> Level: ...

    def drift(self, t: Tensor) -> Tensor:
        """`f(x, t) / x`."""
        ...

    def diffusion(self, t: Tensor) -> Tensor:
        """`g(t) >= 0`."""
        ...

    def discretised(self, t: Tensor, n: int) -> Transition:
        """The step at time t of the chain of `n` steps."""
        ...

    def urgency(self, t: Tensor) -> Tensor:
        """An antiderivative of `(g / sigma)^2`, the likelihood's weight of the error of eps."""
        ...

    def when(self, urgency: Tensor) -> Tensor:
        """The time of an urgency: its inverse."""
        ...


# ---- variance preserving -----------------------------------------------------------------------


@dataclass(frozen=True)
class VP:
    """Variance preserving: DDPM's chain in the limit of many steps, with beta linear in t.

    Raises `SuffuseError` unless `0 <= beta_min < beta_max`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta_min < self.beta_max < math.inf:
            raise SuffuseError(
                "beta must grow from at least 0: "
                f"beta_min={self.beta_min}, beta_max={self.beta_max}"
            )

    @property
    def prior_std(self) -> float:
        return 1.0

    def at(self, t: Tensor) -> Level:
        """The marginal at times `t ()` or `(B,)` in [0, 1]."""
        total = self.total(t)
        return Level(_wide((-total / 2).exp()), _wide((-(-total).expm1()).sqrt()), LABELS * t)

    def drift(self, t: Tensor) -> Tensor:
        return _wide(-self.beta(t) / 2)

    def diffusion(self, t: Tensor) -> Tensor:
        return _wide(self.beta(t).sqrt())

    def discretised(self, t: Tensor, n: int) -> Transition:
        """DDPM's chain (paper, eq. 10): beta_i are n values, evenly spaced, between its ends / n.

        Raises `SuffuseError` when n is so small that a beta reaches 1.
        """
        if self.beta_max >= n:
            least = math.floor(self.beta_max) + 1
            raise SuffuseError(f"{n} steps are too few for beta_max {self.beta_max}: take {least}")
        share = _index(t, n) / max(n - 1, 1)
        beta = _wide(self.beta(share) / n)
        # The forward step's own deviation, DDPM's "fixed large", as score_sde's `sampling.py`.
        return Transition((1 - beta).sqrt(), beta.sqrt(), beta.sqrt())

    def urgency(self, t: Tensor) -> Tensor:
        # beta / (1 - exp(-B)), integrated over dB = beta dt: log(exp(B) - 1).
        return self.total(t).expm1().log()

    def when(self, urgency: Tensor) -> Tensor:
        return self._time(torch.nn.functional.softplus(urgency))

    def beta(self, t: Tensor) -> Tensor:
        """`beta(t)`, in the shape of `t`."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def total(self, t: Tensor) -> Tensor:
        """`B(t)`, in the shape of `t`."""
        return t * self.beta_min + t**2 * (self.beta_max - self.beta_min) / 2

    def _time(self, total: Tensor) -> Tensor:
        """The time at which `B` has this value: the positive root of a quadratic equation."""
        slope = self.beta_max - self.beta_min
        # In this form nothing cancels near t = 0.
        return 2 * total / (self.beta_min + (self.beta_min**2 + 2 * slope * total).sqrt())


@dataclass(frozen=True)
class SubVP(VP):
    """Variance below VP's at all times, with the same signal; its likelihoods are better."""

    def at(self, t: Tensor) -> Level:
        total = self.total(t)
        return Level(_wide((-total / 2).exp()), _wide(-(-total).expm1()), LABELS * t)

    def diffusion(self, t: Tensor) -> Tensor:
        return _wide((self.beta(t) * -(-2 * self.total(t)).expm1()).sqrt())

    def discretised(self, t: Tensor, n: int) -> Transition:
        """Euler and Maruyama's step; no chain is known that this SDE is the limit of."""
        step = 1 / n
        return Transition(1 + self.drift(t) * step, self.diffusion(t) * math.sqrt(step), None)

    def urgency(self, t: Tensor) -> Tensor:
        # coth(B/2) beta: 2 log sinh(B/2).
        return 2 * (self.total(t) / 2).sinh().log()

    def when(self, urgency: Tensor) -> Tensor:
        return self._time(2 * (urgency / 2).exp().asinh())


# ---- variance exploding ------------------------------------------------------------------------


@dataclass(frozen=True)
class VE:
    """Variance exploding: NCSN's noise scales, a geometric sequence, in the limit of many.

    Data in [0, 1] and `sigma_max` near the largest distance between two images are the paper's
    choice (arXiv 2006.09011, technique 1). Raises `SuffuseError` unless
    `0 < sigma_min < sigma_max`.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise SuffuseError(
                "noise must grow from above 0: "
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}"
            )

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    def at(self, t: Tensor) -> Level:
        """The marginal at times `t ()` or `(B,)` in [0, 1]; the network is told sigma itself."""
        sigma = self.sigma(t)
        return Level(_wide(torch.ones_like(t)), _wide(sigma), sigma)

    def drift(self, t: Tensor) -> Tensor:
        return _wide(torch.zeros_like(t))

    def diffusion(self, t: Tensor) -> Tensor:
        return _wide(self.sigma(t)) * math.sqrt(2 * self._growth)

    def discretised(self, t: Tensor, n: int) -> Transition:
        """NCSN's chain (paper, eq. 8): n scales, and none before the first."""
        index = _index(t, n)
        sigma = self.sigma(index / max(n - 1, 1))
        before = self.sigma((index - 1) / max(n - 1, 1)) * (index > 0)
        noise = (sigma**2 - before**2).sqrt()
        one = torch.ones_like(noise)
        return Transition(_wide(one), _wide(noise), _wide(before * noise / sigma))

    def urgency(self, t: Tensor) -> Tensor:
        return 2 * self._growth * t

    def when(self, urgency: Tensor) -> Tensor:
        return urgency / (2 * self._growth)

    def sigma(self, t: Tensor) -> Tensor:
        """`sigma(t)`, in the shape of `t`."""
        return self.sigma_min * (self._growth * t).exp()

    @property
    def _growth(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


SDES = {"vp": VP, "subvp": SubVP, "ve": VE}


# ---- what holds for all ------------------------------------------------------------------------


def prior_log_prob(sde: SDE, x: Tensor) -> Tensor:
    """Log-density of `x (B, C, H, W)` under the prior, (B,) in nats."""
    squares = x.square().flatten(1).sum(1) / (2 * sde.prior_std**2)  # (B,)
    return -squares - x[0].numel() / 2 * math.log(2 * math.pi * sde.prior_std**2)


def likelihood_weight(sde: SDE, t: Tensor) -> Tensor:
    """`(g / sigma)^2`, (B,): with it the mean error of eps bounds the likelihood.

    Likelihood weighting, arXiv 2101.09258, eq. 7, weighs the error of the score by `g^2`.
    """
    return (sde.diffusion(t) / sde.at(t).sigma).square().flatten()


def likelihood_times(sde: SDE, u: Tensor, eps: float = 1e-5) -> tuple[Tensor, float]:
    """Times in [eps, 1] from uniform `u (B,)` in [0, 1], as likely as their weight is large.

    The loss at these times has the expectation of the weighted one divided by the number that
    comes with them, and a far smaller variance (arXiv 2101.09258, appendix B).
    """
    first = sde.urgency(torch.tensor(eps, dtype=torch.float64))
    total = sde.urgency(torch.ones((), dtype=torch.float64)) - first
    t = sde.when(first + u.double() * total).clamp(eps, 1)
    return t.to(u.dtype), float(total) / (1 - eps)


def _wide(values: Tensor) -> Tensor:
    """() as it is, (B,) to (B, 1, 1, 1)."""
    return values.reshape(values.shape + (1, 1, 1) * values.dim())


def _index(t: Tensor, n: int) -> Tensor:
    """Which of `n` steps a time in [0, 1] belongs to, as a whole number from 0 to n - 1.

    In float32, score_sde's own rounding loses a step here and there of a thousand; the margin puts
    those back where exact arithmetic has them.
    """
    return (t.double() * (n - 1) + 1e-9).floor().to(t.dtype)
