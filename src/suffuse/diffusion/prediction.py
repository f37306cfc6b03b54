"""What a network's output means: from eps, x0, v or a velocity to the clean image and the noise.

A `RawModel` is a network with its conditioning bound; `predict` turns it into a `Denoiser`, which
is all a sampler ever sees. With `x = alpha * x0 + sigma * eps` the four targets are

    eps                                      DDPM, arXiv 2006.11239, eq. 14
    x0
    v    = alpha * eps - sigma * x0          arXiv 2202.00512, appendix D
    flow = eps - x0                          rectified flow, arXiv 2209.03003, eq. 1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

Kind = Literal["eps", "x0", "v", "flow"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A denoiser's answer, each `(B, C, H, W)`.

    `raw` is the network's output after guidance, of kind `kind`: PLMS keeps a history of it, and
    for v-models that is not the history of eps. `var` is what a network that learns its variance
    says about it: 1 is the largest sensible variance of a step, -1 the smallest (arXiv 2102.09672,
    eq. 15). `score` is a classifier's gradient of log p(y | x), scaled: `ddpm` moves its mean by it
    and the other samplers their noise, see `classifier_guidance.py`.
    """

    x0: Tensor
    eps: Tensor
    raw: Tensor
    kind: Kind = "eps"
    var: Tensor | None = None
    score: Tensor | None = None


RawModel = Callable[[Tensor, Level], Tensor]  # (B,C,H,W), level -> (B,C,H,W)
Denoiser = Callable[[Tensor, Level], Prediction]


def diffuse(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """`alpha * x0 + sigma * eps`, (B, C, H, W): the forward process in one step."""
    return level.alpha * x0 + level.sigma * eps


def predict(model: RawModel, kind: Kind, learned_var: bool = False) -> Denoiser:
    """Read `model`'s output as `kind` and complete it to a `Prediction`.

    With `learned_var` the output has twice the channels of `x`, the second half being `var`.

    Raises `SuffuseError` for an unknown kind.
    """
    check_kind(kind)

    def denoise(x: Tensor, level: Level) -> Prediction:
        raw, var = model(x, level), None
        if learned_var:
            raw, var = raw.chunk(2, dim=1)  # (B,2C,H,W) -> two of (B,C,H,W)
        x0, eps = solve(kind, x, raw, level)
        return Prediction(x0, eps, raw, kind, var)

    return denoise


def target(kind: Kind, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What a network of this kind is trained to output, (B, C, H, W).

    Raises `SuffuseError` for an unknown kind.
    """
    check_kind(kind)
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    if kind == "v":
        return level.alpha * eps - level.sigma * x0
    return eps - x0


def check_kind(kind: str) -> str:
    """`kind`, if it is one of `KINDS`; raises `SuffuseError` naming them otherwise."""
    if kind not in KINDS:
        raise SuffuseError(f"unknown prediction kind {kind!r}; known ones are: {', '.join(KINDS)}")
    return kind


# ---- the algebra, one function a kind ----------------------------------------------------------
#
# Each solves `x = alpha * x0 + sigma * eps` together with the definition of its target. v and flow
# are well-posed at every level. eps says nothing about x0 at alpha = 0 (zero terminal SNR) and x0
# nothing about eps at sigma = 0: there the answer of least norm, zero, is returned in place of a
# division by zero, and nothing becomes infinite.


def solve(kind: Kind, x: Tensor, raw: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """The `(x0, eps)` that an output `raw` of this kind means at `x`, each (B, C, H, W)."""
    return _SOLVE[kind](x, raw, level)


def inverse(a: Tensor) -> Tensor:
    """`1 / a`, and 0 where `a` is 0."""
    return torch.where(a == 0, torch.zeros_like(a), 1 / a)


def eps_to_x0(x: Tensor, eps: Tensor, level: Level) -> Tensor:
    """The clean image that `x` holds if its noise is `eps`, (B, C, H, W); 0 where alpha is 0."""
    return (x - level.sigma * eps) * inverse(level.alpha)


def x0_to_eps(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """The noise that `x` holds if its clean image is `x0`, (B, C, H, W); 0 where sigma is 0."""
    return (x - level.alpha * x0) * inverse(level.sigma)


def _solve_eps(x: Tensor, raw: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    return eps_to_x0(x, raw, level), raw


def _solve_x0(x: Tensor, raw: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    return raw, x0_to_eps(x, raw, level)


def _solve_v(x: Tensor, raw: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    # The norm is 1 for variance-preserving levels; with it the formula holds for every level.
    alpha, sigma = level.alpha, level.sigma
    norm = alpha**2 + sigma**2
    return (alpha / norm) * x - (sigma / norm) * raw, (sigma / norm) * x + (alpha / norm) * raw


def _solve_flow(x: Tensor, raw: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    # The sum is 1 for rectified flow, where alpha = 1 - t and sigma = t.
    alpha, sigma = level.alpha, level.sigma
    total = alpha + sigma
    return (x - sigma * raw) / total, (x + alpha * raw) / total


_SOLVE = {"eps": _solve_eps, "x0": _solve_x0, "v": _solve_v, "flow": _solve_flow}
