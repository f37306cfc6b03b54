"""What an autoencoder descends: how far its pictures are from the ones it was given.

The terms are those of VQGAN (2012.09841, section 3) and latent diffusion (2112.10752, appendix G),
and a Laplacian pyramid, which needs no trained network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from suffuse.networks.discriminator import (
    DiscriminatorConfig,
    Loss,
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    still,
)
from suffuse.networks.perceptual import Perceptual, style


@dataclass(frozen=True)
class Losses:
    """The weight of every term; a term of weight 0 is not computed.

    reduction: "mean" over pixels (VQGAN), or "sum" over each picture (latent diffusion's KL models,
        whose KL weight of 1e-6 is meant beside such sums)
    kl: of the KL divergence in nats, summed over each picture
    codebook, commitment: see `quantizer.codebook_loss`
    bands: of the Laplacian pyramid
    perceptual, style: of the distances of `networks.perceptual`
    logvar: where the learned log-variance of the reconstruction starts; None for none
    adversarial: of the discriminator, on top of the adaptive weight; 0 for none
    start: the step from which the discriminator takes part
    """

    pixels: Literal["l1", "l2"] = "l1"
    reduction: Literal["mean", "sum"] = "mean"
    kl: float = 1e-6
    codebook: float = 1.0
    commitment: float = 0.25
    bands: float = 0.0
    perceptual: float = 0.0
    style: float = 0.0
    logvar: float | None = None
    adversarial: float = 0.0
    loss: Loss = "hinge"
    start: int = 50_000
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    @property
    def compares(self) -> bool:
        """Whether a term needs a perceptual network."""
        return bool(self.perceptual or self.style)


def laplacian_loss(a: Tensor, b: Tensor, levels: int = 4) -> Tensor:
    """L1 between Laplacian pyramids, coarse bands weighing more (Lap1 of 1707.05776, section 3.1).

    A perceptual term that needs no trained network: an edge that is a little off costs less than
    one that is missing. The gradient reaches every pixel of `a`.
    """
    total, difference = a.new_zeros(()), a - b
    for level in range(levels):
        coarse = avg_pool2d(difference, 2)
        band = difference - interpolate(coarse, size=difference.shape[-2:])
        total = total + 2.0**level * band.abs().mean()
        difference = coarse
    return total + 2.0**levels * difference.abs().mean()


class Critics:
    """The terms of a loss, with what is trained beside the autoencoder.

    logvar: (1,) in a list of parameters, or None;  discriminator: or None
    The perceptual network stands still; it is no part of a checkpoint.
    """

    def __init__(self, losses: Losses, perceptual: Perceptual | None = None):
        if losses.compares and perceptual is None:
            raise ValueError("a perceptual or style term needs a network that compares")
        self.losses = losses
        self.perceptual = perceptual if losses.compares else None
        self.logvar: nn.ParameterList | None = None
        if losses.logvar is not None:
            self.logvar = nn.ParameterList([torch.full((1,), losses.logvar)])
        self.discriminator: PatchDiscriminator | None = None
        if losses.adversarial:
            self.discriminator = PatchDiscriminator(losses.discriminator)

    def active(self, step: int) -> bool:
        """Whether the discriminator takes part."""
        return self.discriminator is not None and step >= self.losses.start

    def terms(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Distances of pictures (B, 3, H, W) in [-1, 1] by their names, means over the batch."""
        o, difference = self.losses, image.float() - target
        pixels = difference.abs() if o.pixels == "l1" else difference.square()
        terms: dict[str, Tensor] = {o.pixels: pixels.mean()}
        if o.bands:
            terms["bands"] = laplacian_loss(image.float(), target)
        if self.perceptual is not None:
            ours, theirs = self.perceptual.to(image.device).maps(image, target)
            if o.perceptual:
                terms["perceptual"] = self.perceptual.distance(ours, theirs).mean()
            if o.style:
                terms["style"] = style(ours, theirs).mean()
        return terms

    def distance(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of what `terms` gave."""
        o = self.losses
        weights: dict[str, float] = {
            "bands": o.bands,
            "perceptual": o.perceptual,
            "style": o.style,
            o.pixels: 1.0,
        }
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    def nll(self, image: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Negative log-likelihood of the reconstruction, up to a constant.

        With a learned variance, distance / variance + log variance (2112.10752, appendix G).
        """
        nll = self.distance(terms)
        if self.logvar is not None:
            nll = nll / self.logvar[0].exp().squeeze() + self.logvar[0].squeeze()
        return nll * image[0].numel() if self.losses.reduction == "sum" else nll

    def persuade(
        self, image: Tensor, nll: Tensor, last: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the autoencoder descends to pass for real, and numbers; `last` is its last layer."""
        assert self.discriminator is not None
        with still(self.discriminator):
            adversarial = generator_loss(self.discriminator(image))
        weight = self.losses.adversarial * adaptive_weight(nll, adversarial, last)
        return weight * adversarial, {"adversarial": adversarial, "weight": weight}

    def judge(self, image: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the discriminator descends: pictures made and given, (B, 3, H, W) in [-1, 1]."""
        assert self.discriminator is not None
        real, fake = self.discriminator(target.detach()), self.discriminator(image.detach())
        loss = discriminator_loss(real, fake, self.losses.loss)
        return loss, {"judgement": loss, "real": real.mean(), "fake": fake.mean()}
