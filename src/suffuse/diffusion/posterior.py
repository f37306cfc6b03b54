"""One step of DDPM's Markov chain seen backwards: its posterior and the variance of the reverse.

Both are functions of the two levels that the step lies between, so that they hold for every grid:
leaving out levels *is* the respacing of improved DDPM (arXiv 2102.09672, section 4), with nothing
to recompute. The levels may be scalars, as samplers hold them, or whole tables (see `chain.py`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

Variance = Literal["small", "large", "learned", "learned_range"]
VARIANCES: tuple[str, ...] = get_args(Variance)
LEARNED = ("learned", "learned_range")  # the network's output has a second half that tells it


class Posterior(NamedTuple):
    """`q(then | now, x0) = N(x0_weight * x0 + x_weight * x, var)`, and the forward step's variance.

    All four have the shape of the levels they come from.
    """

    x0_weight: Tensor
    x_weight: Tensor
    var: Tensor  # 0 where the step ends on the clean image
    beta: Tensor  # of q(now | then)


def posterior(now: Level, then: Level) -> Posterior:
    """The posterior of the forward step from `then` to the noisier `now` (2006.11239, eq. 6-7)."""
    shrink = now.alpha / then.alpha  # sqrt(1 - beta)
    beta = now.sigma**2 - (shrink * then.sigma) ** 2
    left = (then.sigma / now.sigma) ** 2
    return Posterior(then.alpha * beta / now.sigma**2, shrink * left, left * beta, beta)


def reverse_variance(
    kind: Variance, step: Posterior, floor: Tensor, told: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The variance of `p(then | now)` and its logarithm, each () or (B, C, H, W).

    - `small`: the posterior's, right for data that is a single point.
    - `large`: the forward step's beta, right for standard normal data (2006.11239, section 3.2).
    - `learned`: `told` (B, C, H, W) is its logarithm.
    - `learned_range`: between the two in the logarithm, `told` = -1 being the smaller and 1 the
      larger (2102.09672, eq. 15).

    Where the step ends on the clean image the posterior has no variance, and a logarithm no value:
    `floor` stands in, which guided-diffusion takes from the step before (`small` keeps its variance
    of 0 beside the logarithm of `floor`; `large` takes `floor` for both).

    Raises `SuffuseError` for an unknown kind, or a learned one without `told`.
    """
    check_variance(kind)
    ends = step.var <= 0
    low = torch.where(ends, floor, step.var).log()
    if kind == "small":
        return step.var, low
    if kind == "large":
        high = torch.where(ends, floor, step.beta)
        return high, high.log()
    if told is None:
        raise SuffuseError(f"{kind} variance needs a network that predicts its variance")
    log = told
    if kind == "learned_range":
        share = (told + 1) / 2
        log = share * step.beta.log() + (1 - share) * low
    return log.exp(), log


def check_variance(kind: str) -> str:
    """`kind`, if it is one of `VARIANCES`; raises `SuffuseError` naming them otherwise."""
    if kind not in VARIANCES:
        known = ", ".join(VARIANCES)
        raise SuffuseError(f"unknown variance {kind!r}; known ones are: {known}")
    return kind
