"""Controllable generation without retraining (arXiv 2011.13456, section 5 and appendix I).

Under a condition y the reverse-time SDE needs another score, and Bayes' rule has it:

    grad log p_t(x | y) = grad log p_t(x) + grad log p_t(y | x)                   (paper, eq. 14)

`classifier_guidance.py` adds the second gradient to a denoiser: `shifted(classifier(denoiser,
log_prob))` is one of `p(x | y)`, for every sampler. Where y is a part of the image itself,
inpainting and colourisation, no gradient is needed: that part is drawn, `replaced`, at each level.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from suffuse.diffusion.classifier_guidance import LogProb
from suffuse.diffusion.prediction import Denoiser, diffuse
from suffuse.diffusion.samplers.common import Noise
from suffuse.diffusion.samplers.predictor_corrector import Projection
from suffuse.diffusion.schedule import Level


def measured(denoiser: Denoiser, log_prob: Callable[[Tensor], Tensor]) -> LogProb:
    """Any differentiable measurement of clean images: `log p(y | x0)`, (B, C, H, W) to (B,).

    At a noisy image the predicted clean one stands in for all that it may be (arXiv 2209.14687,
    eq. 11), which is exact in the limit of little noise only.
    """
    return lambda x, level: log_prob(denoiser(x, level).x0)


# ---- what is known of the image itself ---------------------------------------------------------


def replaced(part: Callable[[Tensor], Tensor], image: Tensor, noise: Noise) -> Projection:
    """Put the known part of `image (B, C, H, W)`, noised to the level, in place of the sample's.

    `part` is an orthogonal projection onto what is known: linear, and itself when done twice. The
    noise of the part has then the distribution it has in the forward process, so the part is a
    draw from its marginal (paper, appendix I.2).
    """

    def project(x: Tensor, level: Level) -> Tensor:
        known = diffuse(image, noise(), level) if level.sigma > 0 else level.alpha * image
        return x + part(known - x)

    return project


def inpainted(image: Tensor, known: Tensor, noise: Noise) -> Projection:
    """Keep the pixels of `image (B, C, H, W)` where `known`, (B or 1, 1, H, W), is 1."""
    return replaced(lambda x: known * x, image, noise)


def colourised(image: Tensor, noise: Noise) -> Projection:
    """Keep the grey values of `image (B, 3, H, W)`, the means of its channels.

    They are one axis of an orthonormal basis of the colours, the decoupled space of the paper's
    appendix I.3; score_sde's `controllable_generation.py` writes out all three axes.
    """
    return replaced(lambda x: x.mean(1, keepdim=True).expand_as(x), image, noise)
