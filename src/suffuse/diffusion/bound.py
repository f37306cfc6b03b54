"""The variational bound on the likelihood, term by term, in bits per dimension.

    L_vlb = L_T + sum over t of L_t + L_0          arXiv 2006.11239, eq. 5

The prior term L_T asks how far x_T is from the noise that sampling starts with, the L_t how far
each reverse transition is from the posterior it stands for, and the decoder L_0 how many bits the
grey levels still take given the last step. Images hold 256 grey levels in [-1, 1]: a bound on
anything else than pixels has no meaning as a length of code. All terms agree with
guided-diffusion's `gaussian_diffusion.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from suffuse.diffusion.chain import Chain, Gaussian, Reverse
from suffuse.diffusion.prediction import RawModel, diffuse, x0_to_eps

GREY_LEVELS = 256


class Term(NamedTuple):
    """One step's share of the bound, and the errors of its prediction; (B,) each."""

    t: int
    vb: Tensor  # bits per dimension
    x0_mse: Tensor
    eps_mse: Tensor


class Bits(NamedTuple):
    """The bound of a batch. Column t of the tables belongs to step t, the cleanest first."""

    total: Tensor  # (B,) bits per dimension
    prior: Tensor  # (B,)
    vb: Tensor  # (B, T), summed with `prior` it is `total`
    x0_mse: Tensor  # (B, T)
    eps_mse: Tensor  # (B, T)


def kl(p: Gaussian, q: Gaussian) -> Tensor:
    """`KL(p || q)` of each pixel in nats, (B, C, H, W)."""
    apart = p.log_var - q.log_var
    return 0.5 * (apart.expm1() - apart + (p.mean - q.mean).square() * (-q.log_var).exp())


def grey_level_log_likelihood(x0: Tensor, p: Gaussian) -> Tensor:
    """Log-probability in nats of each grey level `x0` in [-1, 1] under `p`, (B, C, H, W) (eq. 13).

    A level owns the interval half way to its neighbours, the outermost two all that lies beyond.
    Both references take the tanh approximation of the normal distribution function, and so do we:
    it is within 2e-4 of the true one. Probabilities are kept above 1e-12, about 40 bits.
    """
    half = 1 / (GREY_LEVELS - 1)
    narrow = (-0.5 * p.log_var).exp()
    above = _normal_cdf((x0 - p.mean + half) * narrow)
    below = _normal_cdf((x0 - p.mean - half) * narrow)
    # The black and the white level are told by a margin: x0 / 127.5 - 1 may miss -1 by rounding.
    inside = torch.where(x0 > 0.999, 1 - below, above - below)
    return torch.where(x0 < -0.999, above, inside).clamp_min(1e-12).log()


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)).tanh())


def prior(chain: Chain, x0: Tensor) -> Tensor:
    """L_T: `KL(q(x_T | x0) || N(0, 1))` in bits per dimension, (B,)."""
    alpha_bar = chain.schedule.alpha_bar[-1]
    scale, var, log_var = (
        table.to(x0.device, torch.promote_types(x0.dtype, torch.float32))
        for table in (alpha_bar.sqrt(), 1 - alpha_bar, torch.log1p(-alpha_bar))
    )
    zero = torch.zeros_like(var)
    return _bits(kl(Gaussian(scale * x0, var, log_var), Gaussian(zero, zero + 1, zero)))


def vb_term(reverse: Reverse, raw: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """L_t of images `x0 (B, C, H, W)` at steps `t (B,)`, in bits per dimension, (B,).

    `x` is the noisy image and `raw` what the network says of it. Step 0 is the decoder's.
    """
    return _vb(reverse(raw, x, t).p, reverse.chain.posterior(x0, x, t), x0, t)


def _vb(mine: Gaussian, true: Gaussian, x0: Tensor, t: Tensor) -> Tensor:
    decoder = _bits(-grey_level_log_likelihood(x0, mine))
    return torch.where(t == 0, decoder, _bits(kl(true, mine)))


@torch.no_grad()
def vb_terms(
    model: RawModel, reverse: Reverse, x0: Tensor, noise: Callable[[], Tensor]
) -> Iterator[Term]:
    """Every step's term for `x0 (B, C, H, W)`, noisiest first, with one draw of noise a step."""
    for step in reversed(range(reverse.chain.T)):
        t = torch.full((len(x0),), step, device=x0.device)
        level = reverse.chain.level(t)
        eps = noise()
        x = diffuse(x0, eps, level)
        p, clean = reverse(model(x, level), x, t)
        vb = _vb(p, reverse.chain.posterior(x0, x, t), x0, t)
        told = x0_to_eps(x, clean, level)
        yield Term(step, vb, _mean((clean - x0).square()), _mean((told - eps).square()))


def bits_per_dim(
    model: RawModel, reverse: Reverse, x0: Tensor, noise: Callable[[], Tensor]
) -> Bits:
    """The bound on `-log2 p(x0)` of pixels `x0 (B, C, H, W)` in [-1, 1], one call a step.

    `reverse.limit` is 1 in the references. Progress bars take `vb_terms`.
    """
    terms = sorted(vb_terms(model, reverse, x0, noise), key=lambda term: term.t)
    first = prior(reverse.chain, x0)
    vb = torch.stack([term.vb for term in terms], 1)  # (B,T)
    x0_mse = torch.stack([term.x0_mse for term in terms], 1)
    eps_mse = torch.stack([term.eps_mse for term in terms], 1)
    return Bits(first + vb.sum(1), first, vb, x0_mse, eps_mse)


def _mean(values: Tensor) -> Tensor:
    """The mean of each image, (B, ...) to (B,)."""
    return values.flatten(1).mean(1)


def _bits(nats: Tensor) -> Tensor:
    return _mean(nats) / math.log(2)
