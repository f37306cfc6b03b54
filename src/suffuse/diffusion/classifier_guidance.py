"""Guidance by a classifier or any differentiable measurement: grad log p(x | y) by Bayes' rule.

    grad log p(x | y) = grad log p(x) + scale * grad log p(y | x)        arXiv 2105.05233, section 4

The first term is the model's, the second needs a `log_prob` of noisy images. A scale of 1 is Bayes'
rule, larger ones sharpen p(y | x), and 0 is no guidance. (Classifier-free guidance needs no
classifier and counts its scale from 1, see `guidance.py`.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from suffuse.diffusion.prediction import Denoiser, Prediction, inverse, target
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

LogProb = Callable[[Tensor, Level], Tensor]  # x (B,C,H,W), level -> log p(y | x) (B,)


def classifier(denoiser: Denoiser, log_prob: LogProb, scale: float = 1.0) -> Denoiser:
    """Push samples to where `log_prob` is high, by `scale` times its gradient in x.

    `log_prob` is the log-probability of what is wanted given the *noisy* x, in nats up to a
    constant: a noise-aware classifier's (`of_class`), or any differentiable measurement. One that
    knows clean images only may look at `denoiser(x, level).x0`.

    The gradient becomes `Prediction.score`, for the sampler to use: `ddpm` moves its mean by
    variance times score (arXiv 2105.05233, algorithm 1), all others the noise (algorithm 2, see
    `shifted`). Several classifiers add up. Scale 0 asks nothing and costs nothing.

    Raises `SuffuseError` for a negative scale.
    """
    if not scale >= 0:
        raise SuffuseError(f"the scale of classifier guidance must be at least 0, not {scale:g}")
    if scale == 0:
        return denoiser

    def denoise(x: Tensor, level: Level) -> Prediction:
        p = denoiser(x, level)
        score = scale * gradient(log_prob, x, level)
        return replace(p, score=score if p.score is None else p.score + score)

    return denoise


def gradient(log_prob: LogProb, x: Tensor, level: Level) -> Tensor:
    """The gradient of `log_prob` in x, (B, C, H, W), also inside `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made in inference mode cannot be differentiated through; their copies can.
        leaf = x.clone().detach().requires_grad_()
        value = log_prob(leaf, Level(*(v.clone() for v in level)))
        if value.shape != x.shape[:1]:
            raise ValueError(f"log_prob must give one number an image, not {tuple(value.shape)}")
        return torch.autograd.grad(value.sum(), leaf)[0].to(x.dtype)


def of_class(classify: Callable[[Tensor, Tensor], Tensor], labels: Tensor) -> LogProb:
    """`log p(label | x)` of a classifier `(x, level's label) -> logits (B, K)`, for `labels (B,)`.

    Raises `SuffuseError` when a label is not one of its classes.
    """

    def log_prob(x: Tensor, level: Level) -> Tensor:
        logits = classify(x, level.label).float()  # (B,K)
        classes = logits.shape[1]
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise SuffuseError(
                f"this classifier has {classes} classes, 0 to {classes - 1}; "
                f"label {int(labels.max() if labels.max() >= classes else labels.min())} is none"
            )
        return logits.log_softmax(1).gather(1, labels.clone()[:, None]).squeeze(1)  # (B,)

    return log_prob


def shifted(denoiser: Denoiser) -> Denoiser:
    """The classifier's score taken into the prediction: `eps - sigma * score`.

    That is the noise of the conditional distribution, because `-eps / sigma` is the score of the
    unconditional one (arXiv 2105.05233, algorithm 2). x0 moves along by `sigma^2 / alpha * score`.
    """

    def denoise(x: Tensor, level: Level) -> Prediction:
        p = denoiser(x, level)
        if p.score is None:
            return p
        eps = p.eps - level.sigma * p.score
        x0 = p.x0 + level.sigma**2 * inverse(level.alpha) * p.score
        return replace(p, x0=x0, eps=eps, raw=target(p.kind, x0, eps, level), score=None)

    return denoise
