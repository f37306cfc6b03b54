"""Predictor-corrector sampling of the reverse-time SDE (arXiv 2011.13456, section 4.2).

A predictor goes one step back in time along

    dx = [f(x, t) - g(t)^2 score(x, t)] dt + g(t) dw                               (paper, eq. 6)

and a corrector then draws x anew from (nearly) the same marginal by Langevin dynamics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.sampler_names import Corrector, Predictor
from suffuse.diffusion.samplers.common import Noise, Step
from suffuse.diffusion.schedule import Level
from suffuse.diffusion.score import score
from suffuse.diffusion.sde import SDE
from suffuse.errors import SuffuseError

Projection = Callable[[Tensor, Level], Tensor]  # x (B,C,H,W) at a level, with what is known of it


class Draw(NamedTuple):
    """A Gaussian to draw from."""

    mean: Tensor  # (B,C,H,W)
    std: Tensor  # () or (B,1,1,1)


def predictor_corrector(
    denoiser: Denoiser,
    x: Tensor,
    sde: SDE,
    noise: Noise,
    *,
    n: int = 1000,
    eps: float = 1e-3,
    predictor: Predictor = "reverse_diffusion",
    corrector: Corrector = "langevin",
    snr: float = 0.16,
    corrections: int = 1,
    norms: Literal["image", "batch"] = "image",
    denoise: bool = True,
    project: Projection | None = None,
    skipped: int = 0,
) -> Iterator[Step]:
    """From `x (B, C, H, W)`, a draw of the prior, to an image in `n` steps (paper, algorithm 1).

    Times run evenly from 1 to `eps`; score_sde stops at 1e-3 for VP and sub-VP, at 1e-5 for VE.
    Each step corrects `corrections` times, with signal-to-noise ratio `snr`, then predicts. With
    `denoise` the last step draws no noise, without which samples stay visibly grainy (appendix G).
    `norms` says over what the sizes of score and noise are taken: `batch`, their means over all
    images, is score_sde's; `image` keeps an image the same in any batch. `project` is applied
    after every draw (see `control.py`). The first `skipped` steps are left out: x is
    then an image, noised to where they end (arXiv 2108.01073).

    Raises `SuffuseError` as `check` does.
    """
    check(sde, predictor, corrector, n, eps)
    times = torch.linspace(1, eps, n, dtype=torch.float64)[skipped:]
    for i, t in enumerate(times):
        level = level_at(sde, t, x)
        for _ in range(corrections if corrector != "none" else 0):
            x = _corrected(denoiser, x, sde, t, noise, n, snr, corrector, norms)
            x = x if project is None else project(x, level)
        p = denoiser(x, level)
        mean, std = PREDICTORS[predictor](x, score(p, level), sde, t, n)
        last = i == len(times) - 1
        if std > 0 and not (last and denoise):
            mean = mean + std * noise()
        x = mean
        if project is not None:
            x = project(x, _reached(sde, times, i, denoise, x))
        yield Step(i, x, p.x0)


def level_at(sde: SDE, t: Tensor, x: Tensor) -> Level:
    """The level of time `t ()`, its label where the network of `x` wants it."""
    level = sde.at(t)
    return level._replace(label=level.label.to(x.device, torch.float32))


def _reached(sde: SDE, times: Tensor, i: int, denoise: bool, x: Tensor) -> Level:
    """The level that step i ends on; that of clean images where the last one leaves no noise."""
    if i + 1 < len(times):
        return level_at(sde, times[i + 1], x)
    end = level_at(sde, times[i], x)
    clean = Level(torch.ones_like(end.alpha), torch.zeros_like(end.sigma), end.label)
    return clean if denoise else end


def check(sde: SDE, predictor: str, corrector: str, n: int, eps: float) -> None:
    """Raises `SuffuseError` for a name that is not known, and steps that this SDE cannot make."""
    for what, name, known in (
        ("predictor", predictor, get_args(Predictor)),
        ("corrector", corrector, get_args(Corrector)),
    ):
        if name not in known:
            raise SuffuseError(f"unknown {what} {name!r}; known ones are: {', '.join(known)}")
    if n < 1:
        raise SuffuseError(f"steps must be at least 1, not {n}")
    if not 0 < eps < 1:
        raise SuffuseError(f"the last time must lie between 0 and 1, not at {eps}")
    if (predictor, corrector) == ("euler_maruyama", "none"):
        return
    back = sde.discretised(torch.ones(()), n).back  # refuses too few steps
    if predictor == "ancestral" and back is None:
        raise SuffuseError(
            "ancestral sampling is for VP and VE: take reverse_diffusion or euler_maruyama"
        )


# ---- predictors --------------------------------------------------------------------------------


def euler_maruyama(x: Tensor, score: Tensor, sde: SDE, t: Tensor, n: int) -> Draw:
    """The reverse-time SDE over `dt = -1 / n`."""
    drift, g = sde.drift(t), sde.diffusion(t)
    return Draw(x - (drift * x - g**2 * score) / n, g / n**0.5)


def reverse_diffusion(x: Tensor, score: Tensor, sde: SDE, t: Tensor, n: int) -> Draw:
    """The reverse-time SDE, discretised as the forward chain is (paper, eq. 46)."""
    step = sde.discretised(t, n)
    return Draw((2 - step.scale) * x + step.noise**2 * score, step.noise)


def probability_flow(x: Tensor, score: Tensor, sde: SDE, t: Tensor, n: int) -> Draw:
    """The same of the probability-flow ODE: half the score, no noise (paper, eq. 47)."""
    step = sde.discretised(t, n)
    return Draw((2 - step.scale) * x + step.noise**2 / 2 * score, torch.zeros_like(step.noise))


def ancestral(x: Tensor, score: Tensor, sde: SDE, t: Tensor, n: int) -> Draw:
    """A draw from the posterior of the forward chain's step (paper, eq. 4 and appendix F).

    Sub-VP is the limit of no such chain, which `check` refuses.
    """
    step = sde.discretised(t, n)
    assert step.back is not None
    return Draw((x + step.noise**2 * score) / step.scale, step.back)


PREDICTORS: dict[str, Callable[[Tensor, Tensor, SDE, Tensor, int], Draw]] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "probability_flow": probability_flow,
}


# ---- the corrector -----------------------------------------------------------------------------


def _corrected(
    denoiser: Denoiser,
    x: Tensor,
    sde: SDE,
    t: Tensor,
    noise: Noise,
    n: int,
    snr: float,
    corrector: str,
    norms: str,
) -> Tensor:
    """One step of Langevin dynamics at time t (paper, algorithms 4 and 5).

    `annealed` takes NCSN's step size, from the level instead of from the norms.
    """
    level = level_at(sde, t, x)
    s, z = score(denoiser(x, level), level), noise()
    if corrector == "annealed":
        ratio = level.sigma
    else:
        ratio = _norms(z, norms) / _norms(s, norms)  # (B,1,1,1) or ()
    # scale^2 is the alpha_i of algorithm 5; for sub-VP, which has none there, Euler's step's.
    step = 2 * sde.discretised(t, n).scale ** 2 * (snr * ratio) ** 2
    return x + step * s + (2 * step).sqrt() * z


def _norms(x: Tensor, over: str) -> Tensor:
    each = x.flatten(1).norm(dim=1)  # (B,)
    return each.mean() if over == "batch" else each.view(-1, 1, 1, 1)
