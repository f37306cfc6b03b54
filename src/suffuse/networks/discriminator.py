"""The patch discriminator that autoencoders are trained against, and its losses (2012.09841).

It judges overlapping patches, each on its own: (B, 3, H, W) -> (B, 1, h, w) logits, high for real.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from suffuse.networks.parallel import averaged

SLOPE = 0.2  # of the leaky ReLUs
LARGEST = 1e4  # the most that the adaptive weight may be

Loss = Literal["hinge", "vanilla"]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The defaults are VQGAN's: patches of 70 x 70 pixels."""

    width: int = 64
    layers: int = 3  # convolutions of stride 2
    image: int = 3
    actnorm: bool = False  # in place of batch normalisation


class PatchDiscriminator(nn.Module):
    """pix2pix' discriminator (1611.07004, section 3.2), with taming-transformers' names."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(config.image, width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for n in range(1, config.layers + 1):
            wider = config.width * min(2**n, 8)
            stride = 2 if n < config.layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride, 1, bias=config.actnorm),
                ActNorm(wider) if config.actnorm else nn.BatchNorm2d(wider),
                nn.LeakyReLU(SLOPE),
            ]
            width = wider
        self.main = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))
        self.apply(_fresh)

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], at least 24 pixels a side by default."""
        return self.main(image)


def _fresh(module: nn.Module) -> None:
    """First weights as in DCGAN (1511.06434, section 4)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class ActNorm(nn.Module):
    """A scale and shift a channel, set by the first batch to unit variance (1807.03039, 3.1)."""

    initialized: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, width, 1, 1))
        # In the state, or the first batch after loading would set both anew.
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.initialized:
            with torch.no_grad():
                flat = x.transpose(0, 1).flatten(1)  # (C, B * H * W)
                self.loc.copy_(-averaged(flat.mean(1)).view_as(self.loc))
                self.scale.copy_(1 / (averaged(flat.std(1)).view_as(self.scale) + 1e-6))
                self.initialized.fill_(1)
        return self.scale * (x + self.loc)


@contextmanager
def still(net: nn.Module) -> Iterator[None]:
    """What `net` computes in this block passes gradients on and takes none itself."""
    moving = [weight for weight in net.parameters() if weight.requires_grad]
    for weight in moving:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in moving:
            weight.requires_grad_(True)


def discriminator_loss(real: Tensor, fake: Tensor, kind: Loss = "hinge") -> Tensor:
    """Logits of real and of made pictures -> what the discriminator descends.

    hinge: 1705.02894, eq. 3; vanilla: the cross-entropy of 1406.2661.
    """
    if kind == "hinge":
        return 0.5 * (relu(1 - real).mean() + relu(1 + fake).mean())
    return 0.5 * (softplus(-real).mean() + softplus(fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """Logits of made pictures -> what the autoencoder descends, under either loss."""
    return -fake.mean()


def adaptive_weight(nll: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """How much the adversarial loss counts so that both pull the `last` layer alike.

    ||d nll / d last|| / (||d adversarial / d last|| + 1e-4), at most 1e4 (2012.09841, eq. 7).
    """
    pulls = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (nll, adversarial))
    ours, theirs = (averaged(pull).float().norm() for pull in pulls)
    return (ours / (theirs + 1e-4)).clamp(0.0, LARGEST).detach()
