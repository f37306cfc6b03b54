"""Vector quantisation: every vector of a latent becomes the nearest of a learned few (1711.00937).

The network is `VectorQuantizer`; `codebook_loss` trains it; `CodeKeeper` is what training knows of
the codes beside gradients: how much each is used, which are dead, their moving averages.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from suffuse.networks.parallel import gathered

_DISTANCES = 1 << 26  # numbers of the table of distances that are held at a time


class Quantized(NamedTuple):
    """What a latent becomes.

    z: (B, D, h, w) codes in value; to gradients the latent itself (straight through)
    picked: (B, D, h, w) the codes, whose gradient goes to the codebook alone
    indices: (B, h, w) int64
    """

    z: Tensor
    picked: Tensor
    indices: Tensor


class VectorQuantizer(nn.Module):
    """A codebook of `codes` vectors of `width` numbers."""

    def __init__(self, codes: int, width: int):
        super().__init__()
        self.codes = nn.Parameter(torch.empty(codes, width))
        nn.init.uniform_(self.codes, -1 / codes, 1 / codes)

    def forward(self, z: Tensor) -> Quantized:
        """z (B, D, h, w) -> the nearest codes. (1711.00937, eq. 2)"""
        indices = self.nearest(z)
        picked = self.look_up(indices)
        return Quantized(z + (picked - z).detach(), picked, indices)

    def look_up(self, indices: Tensor) -> Tensor:
        """indices (B, h, w) -> codes (B, D, h, w)."""
        return nn.functional.embedding(indices, self.codes).permute(0, 3, 1, 2)  # (B, D, h, w)

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """z (B, D, h, w) -> indices (B, h, w); compared in float32 whatever the precision."""
        flat, codes = vectors(z).float(), self.codes.float()
        norms = codes.square().sum(1)  # |z|^2 is the same for all codes
        with torch.autocast(z.device.type, enabled=False):
            parts = [
                torch.addmm(norms, rows, codes.T, alpha=-2).argmin(1)
                for rows in flat.split(max(1, _DISTANCES // len(codes)))
            ]
        return torch.cat(parts).view(z.shape[0], *z.shape[2:])  # (B, h, w)


def vectors(z: Tensor) -> Tensor:
    """(B, D, h, w) -> (B * h * w, D)."""
    return z.permute(0, 2, 3, 1).flatten(0, 2)  # (B * h * w, D)


def codebook_loss(
    z: Tensor, picked: Tensor, codes: float = 1.0, commitment: float = 0.25
) -> Tensor:
    """Mean squared distance of latents and codes; the weights say which of both it moves.

    (1711.00937, eq. 3.) The published VQGANs and latent-diffusion models were trained with
    `codes=0.25, commitment=1`: in their files the weight stood at the other term, and there it is
    called "legacy". Codes that are moving averages take `codes=0`.
    """
    to_codes = (picked - z.detach()).square().mean()
    to_encoder = (picked.detach() - z).square().mean()
    return codes * to_codes + commitment * to_encoder


def perplexity(indices: Tensor, codes: int) -> Tensor:
    """How many codes a batch uses, were it to use them evenly: 1..codes, from any shape."""
    share = torch.bincount(indices.flatten(), minlength=codes) / indices.numel()
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())


class CodeKeeper(nn.Module):
    """Watches the use of a codebook; restarts dead codes; moves codes by averages where asked.

    usage: (codes,) running mean of how often each was picked, 1 being an even share
    sums: (codes, D) running mean of the latents that picked it, on the same scale; averages only

    Its state belongs into checkpoints, so it is a module; it has no parameters. All processes of a
    run see all latents and so keep the same codes.
    """

    usage: Tensor
    sums: Tensor

    def __init__(
        self,
        quantizer: VectorQuantizer,
        *,
        average: bool = False,
        decay: float = 0.99,
        dead: float = 0.01,
    ):
        """average: the codes are means of their latents instead of learning by gradient
        dead: a code whose usage falls below this share of the even one starts anew; 0 never
        """
        super().__init__()
        self.average, self.decay, self.dead = average, decay, dead
        if average:
            quantizer.codes.requires_grad_(False)
        codes = quantizer.codes.detach()
        self.register_buffer("usage", torch.ones(len(codes)))
        self.register_buffer("sums", codes.clone() if average else codes.new_zeros(0))

    @torch.no_grad()
    def update(
        self, quantizer: VectorQuantizer, z: Tensor, indices: Tensor, generator: torch.Generator
    ) -> None:
        """After a step's z (B, D, h, w) and indices (B, h, w). (1711.00937, appendix A.1)"""
        flat, picks = gathered(vectors(z).float()), gathered(indices.flatten())
        even = len(self.usage) / len(flat)
        counts = torch.bincount(picks, minlength=len(self.usage)) * even
        self.usage.lerp_(counts.to(self.usage), 1 - self.decay)
        if self.average:
            sums = torch.zeros_like(self.sums).index_add_(0, picks, flat) * even
            self.sums.lerp_(sums, 1 - self.decay)
            # A code that nothing picks for long has neither usage nor sum left: it stays.
            seen = self.usage > 1e-6
            quantizer.codes[seen] = self.sums[seen] / self.usage[seen, None]
        self._restart(quantizer, flat, generator)

    def _restart(
        self, quantizer: VectorQuantizer, flat: Tensor, generator: torch.Generator
    ) -> None:
        """Dead codes become latents of this batch, drawn at random (2005.00341, section 3.1)."""
        dead = (self.usage < self.dead).nonzero()[:, 0]
        if not len(dead):
            return
        drawn = torch.randint(len(flat), (len(dead),), generator=generator)
        fresh = flat[drawn.to(flat.device)]
        quantizer.codes[dead] = fresh.to(quantizer.codes.dtype)
        self.usage[dead] = 1.0
        if self.average:
            self.sums[dead] = fresh

    def alive(self) -> Tensor:
        """The share of the codes that are in use, 0..1."""
        return (self.usage >= max(self.dead, 0.01)).float().mean()


class Gumbel(NamedTuple):
    """What a latent becomes under `GumbelQuantizer`.

    z: (B, D, h, w)
    kl: (), nats to the even choice among codes, weighted
    indices: (B, h, w) int64
    """

    z: Tensor
    kl: Tensor
    indices: Tensor


class GumbelQuantizer(nn.Module):
    """A code drawn from a softmax over logits (1611.01144), as in DALL-E's and GumbelVQ."""

    def __init__(self, codes: int, into: int, width: int, kl: float = 5e-4):
        """into: channels of the latent; width: numbers of a code."""
        super().__init__()
        self.kl = kl
        self.logits = nn.Conv2d(into, codes, 1)
        self.codes = nn.Parameter(torch.randn(codes, width))

    def forward(self, z: Tensor, noise: Tensor, temperature: float = 1.0) -> Gumbel:
        """z (B, into, h, w); noise (B, codes, h, w) from the standard exponential distribution.

        In value a draw is one code; its gradient is that of the softmax at `temperature`.
        """
        logits = self.logits(z)  # (B, codes, h, w)
        soft = torch.softmax((logits - noise.log()) / temperature, 1)
        indices = soft.argmax(1)  # (B, h, w)
        hard = one_hot(indices, len(self.codes)).permute(0, 3, 1, 2).to(soft)  # (B, codes, h, w)
        chosen = hard + soft - soft.detach()
        share = torch.softmax(logits, 1)
        nats = (share * torch.log(share * len(self.codes) + 1e-10)).sum(1)  # (B, h, w)
        return Gumbel(
            torch.einsum("bnhw,nd->bdhw", chosen, self.codes), self.kl * nats.mean(), indices
        )
