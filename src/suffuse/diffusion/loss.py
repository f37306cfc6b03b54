"""Training objectives. Each returns one number an image: means and weights are the trainer's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from suffuse.diffusion.bound import vb_term
from suffuse.diffusion.chain import Reverse
from suffuse.diffusion.guidance import Context, Network
from suffuse.diffusion.prediction import Kind, check_kind, diffuse, target
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError


def simple(
    net: Network[Context],
    x0: Tensor,
    context: Context,
    level: Level,
    eps: Tensor,
    kind: Kind,
    weight: Tensor | None = None,
    power: Literal[1, 2] = 2,
) -> Tensor:
    """Mean squared error of the network's answer, (B,) float32 (arXiv 2006.11239, eq. 14).

    `x0` and `eps` are (B, C, H, W), `level` holds (B, 1, 1, 1) and (B,), `weight` is (B,) or None.
    `power` 1 takes the absolute error in its place (SR3, arXiv 2104.07636, eq. 6). The difference
    is taken in float32, also when the network computes in half precision.
    """
    answer = net(diffuse(x0, eps, level), level.label, context)
    error = answer.float() - target(kind, x0, eps, level).float()  # (B,C,H,W)
    loss = (error.square() if power == 2 else error.abs()).mean((1, 2, 3))  # (B,)
    return loss if weight is None else loss * weight


def vlb(
    net: Network[Context], x0: Tensor, context: Context, t: Tensor, eps: Tensor, reverse: Reverse
) -> Tensor:
    """The bound's term of steps `t (B,)` in bits per dimension, (B,) (arXiv 2006.11239, eq. 5).

    T times its mean over uniform steps is L_vlb less the prior term, which nothing can train. Draw
    the steps by `timesteps.second_moment`: uniform ones are too noisy (2102.09672, section 3.3).
    """
    level = reverse.chain.level(t)
    x = diffuse(x0, eps, level)
    return vb_term(reverse, net(x, level.label, context).float(), x0, x, t)


def hybrid(
    net: Network[Context],
    x0: Tensor,
    context: Context,
    t: Tensor,
    eps: Tensor,
    reverse: Reverse,
    weight: float = 0.001,
) -> Tensor:
    """`L_simple + weight * L_vlb` where the variance is learned, (B,) (2102.09672, eq. 16).

    The bound sees the mean as a constant, so that it guides the variance alone. L_vlb is in bits
    per dimension and stands for all T steps: `T` times the term of `t (B,)`. guided-diffusion's
    `RESCALED_MSE` is this with its factor of T / 1000.

    Raises `SuffuseError` when the variance is not a learned one.
    """
    if not reverse.learned:
        raise SuffuseError("the hybrid loss needs a network that learns its variance")
    level = reverse.chain.level(t)
    x = diffuse(x0, eps, level)
    answer = net(x, level.label, context).float()  # (B,2C,H,W)
    value, told = answer.chunk(2, dim=1)
    error = value - reverse.target(x0, eps, x, t).float()
    frozen = torch.cat([value.detach(), told], dim=1)
    bound = reverse.chain.T * vb_term(reverse, frozen, x0, x, t)
    return error.square().mean((1, 2, 3)) + weight * bound


def min_snr_weight(level: Level, kind: Kind, gamma: float = 5.0) -> Tensor:
    """Min-SNR weights, (B,) >= 0 (arXiv 2303.09556, section 3.4).

    The paper weighs the error of x0 by `min(snr, gamma)`. An error of another target is an error of
    x0 times a factor that depends on the level; squared, it gives each kind's weight:

        eps   min(snr, gamma) / snr
        x0    min(snr, gamma)
        v     min(snr, gamma) / (snr + 1)
        flow  min(snr, gamma) * sigma^2 / (alpha + sigma)^2

    They are written in `alpha^2` and `sigma^2`, so that pure noise and pure signal stay finite.
    Raises `SuffuseError` for an unknown kind.
    """
    check_kind(kind)
    signal, noise = level.alpha.square().flatten(), level.sigma.square().flatten()  # (B,)
    if kind == "eps":
        return (gamma * noise / signal).clamp(max=1)
    if kind == "x0":
        return (signal / noise).clamp(max=gamma)
    capped = torch.minimum(signal, gamma * noise)  # min(snr, gamma) * sigma^2
    if kind == "v":
        return capped / (signal + noise).square()
    return capped / (level.alpha + level.sigma).square().flatten()


def p2_weight(level: Level, kind: Kind, k: float = 1.0, gamma: float = 1.0) -> Tensor:
    """P2 weights, (B,) >= 0: less for the levels where only fine detail is left to learn
    (arXiv 2204.00227, eq. 8).

    The paper weighs the error of eps by `1 / (k + snr)^gamma`; in the errors of the others, as for
    `min_snr_weight`, that is

        eps   1 / (k + snr)^gamma
        x0    the same times snr
        v     the same times alpha^2 / (alpha^2 + sigma^2)^2
        flow  the same times alpha^2 / (alpha + sigma)^2

    Raises `SuffuseError` for an unknown kind.
    """
    check_kind(kind)
    signal, noise = level.alpha.square().flatten(), level.sigma.square().flatten()  # (B,)
    weight = (noise / (k * noise + signal)) ** gamma
    if kind == "eps":
        return weight
    if kind == "x0":
        return weight * signal / noise
    if kind == "v":
        return weight * signal / (signal + noise).square()
    return weight * signal / (level.alpha + level.sigma).square().flatten()


def offset_noise(eps: Tensor, shift: Tensor, amount: float) -> Tensor:
    """`eps` (B, C, H, W) plus `amount` times `shift` (B, C, 1, 1), both standard normal.

    Ordinary noise leaves a channel's mean almost untouched, so a model never learns to change it
    and its pictures stay of middling brightness; the draw for the whole channel lifts that (N.
    Guttenberg, "Diffusion with offset noise", 2023, who uses 0.1).
    """
    return eps + amount * shift.to(eps)
