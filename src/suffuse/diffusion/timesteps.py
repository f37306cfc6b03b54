"""Which noise levels a training batch meets: places in [0, 1) become timesteps.

Places come from the trainer, one for each image, uniform and best spread evenly over the batch
(`spread`). A density is applied by its inverse distribution function, so that evenly spread places
stay evenly spread under any of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse.diffusion.schedule import Discrete, Level


def spread(places: Tensor) -> Tensor:
    """Uniform numbers (B,) in [0, 1), each moved into its own equal share of the range.

    Every batch then meets every noise level, and its loss varies less than with independent draws
    (the low-discrepancy sampler of 2107.00630, appendix I.1).
    """
    return (torch.arange(len(places), device=places.device) + places) / len(places)


def logit_normal(places: Tensor, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
    """Places whose logit is normal: the middle levels more often than both ends
    (2403.03206, section 3.1, eq. 19). A positive mean prefers noise."""
    inside = places.double().clamp(1e-9, 1 - 1e-9)
    return (mean + deviation * torch.special.ndtri(inside)).sigmoid().float()


def to_steps(places: Tensor, steps: int) -> Tensor:
    """Timesteps 0..steps - 1, (B,) int64."""
    return (places.double() * steps).long().clamp_(0, steps - 1)


def piecewise_uniform(places: Tensor, schedule: Discrete) -> Level:
    """Levels between the steps of `schedule`, for networks that are told sqrt(alpha_bar).

    Of a place (B,) in [0, 1) the whole part of `place * T` chooses a step, and sqrt(alpha_bar) is
    uniform between that step's and the cleaner neighbour's (2104.07636, section 2.4; 2009.00713,
    section 3.1). Returns alpha and sigma (B, 1, 1, 1) and alpha (B,) as the label, float32.
    """
    clean = torch.ones(1, dtype=torch.float64)
    roots = torch.cat([clean, schedule.alpha_bar.sqrt()])  # (T + 1,), sqrt(alpha_bar_0 .. T)
    at = places.cpu().double() * schedule.T
    low = at.long().clamp_(0, schedule.T - 1)
    alpha = torch.lerp(roots[low], roots[low + 1], at - low)  # (B,)
    sigma = (1 - alpha.square()).sqrt()
    label, sigma = (part.to(places.device, torch.float32) for part in (alpha, sigma))
    return Level(label.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1), label)


def by_probability(places: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Timesteps drawn with `probability` (T,), and weights that keep the mean loss unbiased.

    The weight of a step is `1 / (T * probability)`: the expected weighted loss is the one that
    uniform steps have. Returns (B,) int64 and (B,) float32.
    """
    p = probability.double() / probability.double().sum()
    edges = p.cumsum(0)
    t = torch.searchsorted(edges, places.double().to(edges), right=True).clamp_(max=len(p) - 1)
    return t, (1 / (len(p) * p[t])).float()


def second_moment(losses: Tensor, floor: float = 0.001) -> Tensor:
    """Probabilities (T,) in proportion to the root mean square of each step's last losses.

    losses: (T, K), K remembered losses a step
    floor: share of the draws that stays uniform, so that no step is ever forgotten

    It is the density of least variance for a given objective (2102.09672, section 3.3, eq. 18).
    """
    p = losses.double().square().mean(1).sqrt()
    p = p / p.sum()
    return p * (1 - floor) + floor / len(p)
