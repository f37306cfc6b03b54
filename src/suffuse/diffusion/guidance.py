"""Guidance: closures from networks to raw models and from denoisers to denoisers.

The scale of classifier-free guidance follows diffusers and A1111, the weight w its paper (arXiv
2207.12598, eq. 6). They are the same line, counted from another point:

    scale                                       weight, w = scale - 1
    eps(null) + scale * (eps(c) - eps(null))    (1 + w) * eps(c) - w * eps(null)
    0      the null alone                       -1
    1      no guidance                          0
    7.5    Stable Diffusion's usual             6.5

A classifier's scale is another thing, see `classifier_guidance.py`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.prediction import Denoiser, Prediction, RawModel, x0_to_eps
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

Context = TypeVar("Context")


class Network(Protocol[Context]):
    """What guidance asks of a network; it matches by shape, nothing inherits from it."""

    def prepare(self, cond: Cond) -> Context:
        """Everything that depends on the conditioning alone, once for a whole generation."""
        ...

    def __call__(self, x: Tensor, label: Tensor, context: Context) -> Tensor:
        """`x (B, C, H, W)` to `(B, C, H, W)`; `label` is (B,), or of one number shared by all.

        The context may have k * B rows: the answer then has as many, and is that for x (and its
        labels) k times over.
        """
        ...


# ---- from a network to a raw model -------------------------------------------------------------


def bind(net: Network[Context], cond: Cond) -> RawModel:
    """`net` under `cond`, prepared once. The batch of `cond` must be the batch of every `x`.

    The answer comes back in the dtype of `x`, whatever the network computes in.
    """
    context = net.prepare(cond)

    def raw(x: Tensor, level: Level) -> Tensor:
        return net(x, level.label, context).to(x.dtype)

    return raw


def cfg(
    net: Network[Context],
    cond: Cond,
    null: Cond | None,
    scale: float | Tensor,
    rescale: float = 0.0,
    channels: int | None = None,
    interval: tuple[float, float] | None = None,
) -> RawModel:
    """Classifier-free guidance, `null + scale * (cond - null)`, in one call for both.

    The scale is a number, or one for each image, (B, 1, 1, 1). Where all are 1 the null plays no
    part and nothing is computed for it; it may then be None. A null of one row serves every image.
    `rescale` is the phi of `rescaled`. Of a network that learns its variance only the first
    `channels` are guided: an extrapolated variance is none. Outside an `interval` of sigma / alpha
    nothing is guided, see `within`.

    Raises `ValueError` when there is no null and a scale is not 1.
    """
    if bool((torch.as_tensor(scale) == 1).all()):
        return bind(net, cond)
    if null is None:
        raise ValueError(f"guidance of scale {scale} needs a null conditioning")
    if cond.batch is None:  # nothing to tell the two apart
        return bind(net, cond)
    context = net.prepare(Cond.cat([null.expand(cond.batch), cond]))

    def raw(x: Tensor, level: Level) -> Tensor:
        # x goes in once: what the network computes before it reads any conditioning, it shares.
        if len(x) != cond.batch:
            raise ValueError(f"{len(x)} images for a conditioning of {cond.batch}")
        answer = net(x, level.label, context).to(x.dtype)  # (2B,C,H,W)
        without, with_cond = answer[:, :channels].chunk(2)
        guided = without + scale * (with_cond - without)
        guided = rescaled(guided, with_cond, rescale) if rescale else guided
        if channels is None:
            return guided
        return torch.cat((guided, answer[cond.batch :, channels:]), dim=1)

    return raw if interval is None else within(raw, bind(net, cond), *interval)


def rescaled(guided: Tensor, cond: Tensor, phi: float) -> Tensor:
    """Bring the guided output back to the standard deviation of the conditional one, by `phi`.

    arXiv 2305.08891, eq. 15-16: large scales overexpose, because guidance widens the distribution
    of each image. `phi` in [0, 1] mixes the corrected with the plain output; 0.7 is the paper's.
    """
    axes = tuple(range(1, guided.dim()))
    wide = guided.std(axes, keepdim=True).clamp_min(torch.finfo(guided.dtype).tiny)  # (B,1,1,1)
    factor = cond.std(axes, keepdim=True) / wide
    return phi * (guided * factor) + (1 - phi) * guided


def within(guided: RawModel, plain: RawModel, low: float, high: float) -> RawModel:
    """`guided` while `low < sigma / alpha <= high`, `plain` at all other levels; for sampling.

    Guidance harms at the noisiest levels and is idle at the cleanest (arXiv 2404.07724, section
    3, whose sigma this ratio is). With `plain` unguided those levels cost half.

    Raises `SuffuseError` for an empty interval.
    """
    if not 0 <= low < high:
        raise SuffuseError(f"a guidance interval needs 0 <= low < high, not {low:g} to {high:g}")

    def raw(x: Tensor, level: Level) -> Tensor:
        alpha = float(level.alpha)
        s = float(level.sigma) / alpha if alpha else math.inf
        return guided(x, level) if low < s <= high else plain(x, level)

    return raw


# ---- from a denoiser to a denoiser -------------------------------------------------------------


def clip(denoiser: Denoiser, limit: float = 1.0, rederive: bool = False) -> Denoiser:
    """Keep the predicted clean image in [-limit, limit].

    `rederive` decides what the noise is afterwards. By default it stays the network's own, as in
    diffusers' `scheduling_ddim.py`; rederived, it is the one that explains `x` together with the
    clipped x0, as in guided-diffusion's `gaussian_diffusion.py`. DDIM shows the difference.
    """

    def denoise(x: Tensor, level: Level) -> Prediction:
        p = denoiser(x, level)
        return _with_x0(p, p.x0.clamp(-limit, limit), x, level, rederive)

    return denoise


def dynamic_threshold(
    denoiser: Denoiser,
    ratio: float = 0.995,
    maximum: float | None = None,
    rederive: bool = False,
) -> Denoiser:
    """Imagen's dynamic thresholding (arXiv 2205.11487, section 2.3); for pixel-space models.

    Each image's `s` is the `ratio` quantile of |x0|, at least 1 and at most `maximum`; x0 is
    clamped to [-s, s] and divided by s, which pushes saturated pixels inwards. diffusers' default
    `sample_max_value=1` makes this plain clipping. `rederive` as in `clip`.
    """

    def denoise(x: Tensor, level: Level) -> Prediction:
        p = denoiser(x, level)
        return _with_x0(p, thresholded(p.x0, ratio, maximum), x, level, rederive)

    return denoise


def thresholded(x0: Tensor, ratio: float, maximum: float | None = None) -> Tensor:
    """`x0` clamped to its own quantile and scaled back to [-1, 1], image by image."""
    # One image at a time: torch.quantile refuses inputs of more than 16 million numbers.
    s = torch.stack([image.abs().float().flatten().quantile(ratio) for image in x0])  # (B,)
    s = s.clamp(min=1, max=maximum).to(x0.dtype).view(-1, 1, 1, 1)  # (B,1,1,1)
    return torch.maximum(torch.minimum(x0, s), -s) / s


def _with_x0(p: Prediction, x0: Tensor, x: Tensor, level: Level, rederive: bool) -> Prediction:
    return replace(p, x0=x0, eps=x0_to_eps(x, x0, level) if rederive else p.eps)
