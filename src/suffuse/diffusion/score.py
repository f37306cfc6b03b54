"""Scores, the gradients of log densities, and how networks learn them (arXiv 2011.13456).

The score of the marginal at a level is `-E[eps | x] / sigma`, so a denoiser of any kind is a model
of the score and nothing here asks which.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from suffuse.diffusion.guidance import Context, Network
from suffuse.diffusion.loss import simple
from suffuse.diffusion.prediction import Denoiser, Kind, Prediction, RawModel, diffuse, eps_to_x0
from suffuse.diffusion.schedule import Level


def score(p: Prediction, level: Level) -> Tensor:
    """`grad log p_t(x)`, (B, C, H, W), of a level with noise."""
    return -p.eps / level.sigma


def from_score(model: RawModel) -> Denoiser:
    """Read a network's output as the score itself, as NCSN and score_sde's VE networks give it."""

    def denoise(x: Tensor, level: Level) -> Prediction:
        eps = -level.sigma * model(x, level)
        return Prediction(eps_to_x0(x, eps, level), eps, eps)

    return denoise


def score_matching(
    net: Network[Context],
    x0: Tensor,
    context: Context,
    level: Level,
    eps: Tensor,
    kind: Kind | Literal["score"],
    weight: Tensor | None = None,
) -> Tensor:
    """Denoising score matching in continuous time, (B,) float32 (paper, eq. 7).

    The error of the score is weighed by `lambda = sigma^2`, which for a network that predicts eps
    is `loss.simple`. With `weight = likelihood_weight(sde, t)`, lambda is `g^2` and the objective
    an upper bound of the negative log-likelihood (arXiv 2101.09258, theorem 1). The error is the
    mean over an image's numbers; score_sde sums and halves them where `reduce_mean` is off.
    """
    if kind != "score":
        return simple(net, x0, context, level, eps, kind, weight)
    answer = net(diffuse(x0, eps, level), level.label, context)
    error = level.sigma * answer.float() + eps.float()  # (B,C,H,W)
    loss = error.square().mean((1, 2, 3))  # (B,)
    return loss if weight is None else loss * weight
