"""The noise that `ddim` makes exactly this image of: each of its steps solved for its start.

`ddim_reverse` runs DDIM's equation towards the noise with the prediction at the cleaner end of each
step, and `ddim` brings its noise back with an error of order 1/n. Here step i of `ddim`, which is
`F(x) = a' x0(x) + s' eps(x)` with a' and s' of the level where it ends, is turned round by itself:
the x that it makes y of is the fixed point of

    x <- x + (y - F(x))

A step changes little, so `1 - F'` is small and each round gains digits. Nothing is divided by: a
level without signal (zero terminal SNR) is one like any other, as there v-prediction and flow
still know the noise, and the step keeps most of that. (Fixed points in DDIM's inversion: arXiv
2309.04907 and 2312.12540.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from suffuse.diffusion.classifier_guidance import shifted
from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser, Prediction
from suffuse.diffusion.samplers.common import Step
from suffuse.diffusion.schedule import Level


def ddim_inverse(
    denoiser: Denoiser, x: Tensor, grid: Grid, rounds: int = 4, tolerance: float = 1e-3
) -> Iterator[Step]:
    """From where `ddim` ends, `x (B, C, H, W)`, to the x it starts from; `Step.i` counts from 0.

    rounds: how often a step is corrected at most, at least once; each costs a pass of the denoiser
    tolerance: an image whose step comes back this near, root mean square, needs no further round

    From the last `x`, `ddim` with the same denoiser and grid, and eta 0, gives the image back.
    """
    denoiser = shifted(denoiser)
    guess, p = x, None
    for k, i in enumerate(reversed(range(len(grid)))):
        now = grid.level(i)
        if p is not None:  # predicted at the level before, and carried on: it costs nothing
            guess = now.alpha * p.x0 + now.sigma * p.eps
        x, p = _solved(denoiser, x, guess, (now, grid.target(i)), rounds, tolerance)
        yield Step(k, x, p.x0)


def _solved(
    denoiser: Denoiser,
    y: Tensor,
    guess: Tensor,
    levels: tuple[Level, Level],
    rounds: int,
    tolerance: float,
) -> tuple[Tensor, Prediction]:
    """The x of which the step between the levels makes `y`, and the last prediction on the way.

    A round that does not bring an image nearer is taken back and done again by half: long steps
    (`F'` above 2, as a few steps of an eps-model have) would swing away from the fixed point.
    """
    now, then = levels
    share = torch.ones_like(y[:, :1, :1, :1])  # (B,1,1,1)
    least, x, away = share * torch.inf, guess, torch.zeros_like(y)
    x0, eps = torch.zeros_like(y), torch.zeros_like(y)
    for _ in range(rounds):
        p = denoiser(guess, now)
        left = y - (then.alpha * p.x0 + then.sigma * p.eps)
        size = left.square().mean((1, 2, 3), keepdim=True).sqrt()  # (B,1,1,1)
        # An image that is near enough stays: it is the same alone and among others.
        going = least > tolerance
        nearer = going & (size < least)
        x0, eps = torch.where(going, p.x0, x0), torch.where(going, p.eps, eps)
        share = torch.where(going & ~nearer, share / 2, share)
        x, away = torch.where(nearer, guess, x), torch.where(nearer, left, away)
        least = torch.where(nearer, size, least)
        guess = x + share * away
        if bool((least <= tolerance).all()):
            break
    return guess, replace(p, x0=x0, eps=eps)
