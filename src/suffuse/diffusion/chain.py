"""DDPM's Markov chain as tables: forward, posterior and reverse transitions of any batch of steps.

Training and likelihood need the transition of step t, another one for each image; samplers walk a
`Grid` instead. Both take the formulas from `posterior.py`. A respaced chain has fewer steps and
tables of its own, and still tells the network the step of the schedule it was trained on.

References: DDPM, arXiv 2006.11239 (here by section and equation); improved DDPM, arXiv 2102.09672.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from suffuse.diffusion.grid import Grid, make_grid
from suffuse.diffusion.posterior import (
    LEARNED,
    Posterior,
    Variance,
    check_variance,
    posterior,
    reverse_variance,
)
from suffuse.diffusion.prediction import (
    Denoiser,
    Kind,
    Prediction,
    RawModel,
    check_kind,
    solve,
    target,
    x0_to_eps,
)
from suffuse.diffusion.schedule import Discrete, Level
from suffuse.diffusion.spacing import respacing
from suffuse.errors import SuffuseError


class Gaussian(NamedTuple):
    """A normal distribution of images with a variance for each pixel."""

    mean: Tensor  # (B,C,H,W)
    var: Tensor  # (B,1,1,1) or (B,C,H,W)
    log_var: Tensor  # the same; finite also where `var` is 0, see `reverse_variance`


@dataclass(frozen=True, eq=False)
class Chain:
    """The chain of `schedule`: step 0 is the cleanest, and comes from the clean image.

    `labels` (T,) int64 is what the network is told at each step; the step's own number when None.
    Raises `SuffuseError` when a beta of the schedule is outside (0, 1].
    """

    schedule: Discrete
    labels: Tensor | None = None  # (T,) int64

    def __post_init__(self) -> None:
        beta = self.schedule.betas
        if not bool(((beta > 0) & (beta <= 1)).all()):  # written so that NaN fails too
            raise SuffuseError("each beta of a Markov chain must lie in (0, 1]; check the schedule")

    @classmethod
    def respaced(cls, schedule: Discrete, spec: str) -> Chain:
        """The steps of `schedule` that `spec` ("250", "ddim25", "10,15,20", "fast27") keeps.

        Raises `SuffuseError` for a string that cannot be read, see `spacing.respacing`.
        """
        kept = torch.tensor(respacing(spec, schedule.T))  # (S,)
        return cls(Discrete(schedule.alpha_bar[kept]), kept)

    @property
    def T(self) -> int:
        """The number of steps."""
        return self.schedule.T

    @cached_property
    def tables(self) -> Posterior:
        """The posterior of every step, (T,) float64 each (eq. 7)."""
        alpha, sigma = self.schedule.alpha_bar.sqrt(), (1 - self.schedule.alpha_bar).sqrt()
        steps = torch.arange(self.T)
        now = Level(alpha, sigma, steps)
        clean = torch.ones(1, dtype=torch.float64)
        then = Level(torch.cat([clean, alpha[:-1]]), torch.cat([clean - 1, sigma[:-1]]), steps)
        return posterior(now, then)

    @property
    def floor(self) -> Tensor:
        """What stands in for the posterior variance of step 0, which is 0: that of step 1; ()."""
        return self.tables.var[1] if self.T > 1 else self.tables.beta[0]

    def level(self, t: Tensor) -> Level:
        """The levels of steps `t (B,)` with the labels that the network is told."""
        level = self.schedule.at(t)
        return level if self.labels is None else level._replace(label=self.labels.to(t.device)[t])

    # ---- forward -----------------------------------------------------------------------------

    def forward(self, x0: Tensor, noise: Callable[[], Tensor]) -> Iterator[Tensor]:
        """`x_0 .. x_{T-1}` (B, C, H, W), each a noisier step of the last (eq. 2).

        `prediction.diffuse` jumps to any of them at once (eq. 4).
        """
        x = x0
        for beta in self.schedule.betas:
            x = (1 - beta).sqrt() * x + beta.sqrt() * noise()
            yield x

    # ---- backward ----------------------------------------------------------------------------

    def at(self, t: Tensor, like: Tensor) -> Posterior:
        """Rows `t (B,)` of the tables, (B, 1, 1, 1) on the device and in the dtype of `like`."""
        return Posterior(*(_rows(table, t, like) for table in self.tables))

    def posterior(self, x0: Tensor, x: Tensor, t: Tensor) -> Gaussian:
        """`q(x_{t-1} | x_t, x0)` of images at steps `t (B,)` (eq. 6)."""
        step = self.at(t, x)
        var, log_var = reverse_variance("small", step, self.floor.to(step.var))
        return Gaussian(step.x0_weight * x0 + step.x_weight * x, var, log_var)


class Reversed(NamedTuple):
    """The reverse transition of a batch, and the clean image it aims at."""

    p: Gaussian
    x0: Tensor  # (B,C,H,W)


@dataclass(frozen=True)
class Reverse:
    """How a network's output is read as `p(x_{t-1} | x_t)` of `chain`.

    kind: what it predicts; `mean` is the mean of x_{t-1} itself (section 3.2), which is no matter
        of one level alone, and so unknown to `prediction.py`
    variance: of the transition, see `reverse_variance`; with a learned one the output has twice the
        channels of x
    limit: the clean image is clipped to [-limit, limit] on the way; None does not clip

    Raises `SuffuseError` for an unknown kind or variance.
    """

    chain: Chain
    kind: Kind | Literal["mean"] = "eps"
    variance: Variance = "small"
    limit: float | None = None

    def __post_init__(self) -> None:
        check_variance(self.variance)
        if self.kind != "mean":
            check_kind(self.kind)

    @property
    def learned(self) -> bool:
        """Whether the network tells the variance."""
        return self.variance in LEARNED

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction (B, C, H, W) and what it tells of the variance (B, C, H, W) or None."""
        if not self.learned:
            return raw, None
        value, told = raw.chunk(2, dim=1)  # (B,2C,H,W) -> two of (B,C,H,W)
        return value, told

    def __call__(self, raw: Tensor, x: Tensor, t: Tensor) -> Reversed:
        """`p(x_{t-1} | x_t)` for `x (B, C, H, W)` at steps `t (B,)` and the network's `raw`."""
        value, told = self.split(raw)
        step = self.chain.at(t, x)
        if self.kind == "mean":
            x0 = (value - step.x_weight * x) / step.x0_weight
        else:
            x0, _ = solve(self.kind, x, value, self.chain.level(t))
        if self.limit is not None:
            x0 = x0.clamp(-self.limit, self.limit)
        # A predicted mean stays as it is, whatever clipping says of x0 (`gaussian_diffusion.py`).
        mean = value if self.kind == "mean" else step.x0_weight * x0 + step.x_weight * x
        var, log = reverse_variance(self.variance, step, self.chain.floor.to(step.var), told)
        return Reversed(Gaussian(mean, var, log), x0)

    def target(self, x0: Tensor, eps: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """What the network is trained to output besides the variance, (B, C, H, W)."""
        if self.kind == "mean":
            return self.chain.posterior(x0, x, t).mean
        return target(self.kind, x0, eps, self.chain.level(t))


def predict_mean(model: RawModel, chain: Chain, learned_var: bool = False) -> Denoiser:
    """`prediction.predict` for a network that predicts the mean of x_{t-1}, for any sampler.

    `chain` is the one it was trained on, and labels are its steps: on a grid that leaves some out
    the clean image is still what the mean of a single step says of it.
    """
    reverse = Reverse(chain, "mean", "learned" if learned_var else "small")

    def denoise(x: Tensor, level: Level) -> Prediction:
        raw = model(x, level)
        x0 = reverse(raw, x, level.label.round().long().expand(len(x))).x0
        eps = x0_to_eps(x, x0, level)
        return Prediction(x0, eps, eps, "eps", reverse.split(raw)[1])

    return denoise


def respaced_grid(schedule: Discrete, spec: str, device: torch.device | str | None = None) -> Grid:
    """The grid of the steps that a respacing string keeps, ending on the clean image.

    Raises `SuffuseError` for a string that cannot be read, see `spacing.respacing`.
    """
    whole = make_grid(schedule, schedule.T, device=device)
    kept = [schedule.T - 1 - t for t in reversed(respacing(spec, schedule.T))]
    ends = [*kept, schedule.T]
    return replace(whole, alpha=whole.alpha[ends], sigma=whole.sigma[ends], label=whole.label[kept])


def _rows(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    # Variances of 1e-4 and their logarithms are beyond half precision.
    dtype = torch.promote_types(like.dtype, torch.float32)
    return table.to(like.device, dtype)[t].view(-1, *[1] * (like.dim() - 1))  # (B,1,1,1)
