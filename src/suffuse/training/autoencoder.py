"""Stage one: the autoencoder (2112.10752, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from suffuse.data.stream import Stream
from suffuse.networks.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    AutoencoderKL,
    AutoencoderVQ,
    autoencoder,
)
from suffuse.networks.blocks import channels_last
from suffuse.networks.families import silence
from suffuse.networks.perceptual import Perceptual
from suffuse.networks.quantizer import CodeKeeper, codebook_loss, perplexity
from suffuse.training.draw import normal, uniform
from suffuse.training.reconstruction import Critics, Losses


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)


def to_pictures(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] -> (B, H, W, 3) uint8."""
    levels = (images.float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def contact_sheet(rows: list[np.ndarray], path: Path) -> None:
    """Rows of pictures (n, H, W, 3) uint8, one below the other."""
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)).save(path)


@torch.no_grad()
def start_from_components(net: Autoencoder, images: Tensor, logvar: float = -6.0) -> None:
    """Sets the shortcuts to the principal components of the cells of `images` (B, 3, H, W).

    The networks start silent, so training begins at the best linear autoencoder instead of at
    grey. A component is divided by the root of its deviation: between raw, where the colours drown
    the shapes, and white, where rare details would count as much as colours.
    """
    encoder, decoder = net.encoder, net.decoder
    if encoder.skip is None or decoder.skip is None:
        raise ValueError("only an autoencoder with shortcuts can start from components")
    latent = net.config.latent
    cells = pixel_unshuffle(images, encoder.factor).permute(0, 2, 3, 1).flatten(0, 2)  # (N, D)
    mean = cells.mean(0)
    variance, vectors = torch.linalg.eigh(torch.cov((cells - mean).T.double()))
    basis = vectors.flip(1)[:, :latent].float()  # (D, latent), strongest first
    size = variance.flip(0)[:latent].clamp_min(1e-8).float() ** 0.25  # root of the deviation
    down, up = (basis / size).T, basis * size  # (latent, D), (D, latent)
    encoder.skip.weight.copy_(down[:, :, None, None])
    assert encoder.skip.bias is not None and decoder.skip.bias is not None
    encoder.skip.bias.copy_(-down @ mean)
    decoder.skip.weight.copy_(up[:, :, None, None])
    decoder.skip.bias.copy_(mean)
    for head in (encoder.head.conv, decoder.head.conv):
        silence(head)
    assert encoder.head.conv.bias is not None
    encoder.head.conv.bias[latent:] = logvar


@torch.no_grad()
def unit_channels(net: AutoencoderKL, images: Tensor) -> AutoencoderKL:
    """The same autoencoder with latents of unit deviation in each channel over `images`.

    Components differ in strength: the first ones, mostly the background's colour, would drown the
    others, which carry the shapes, both in noise and in the loss of stage two. The factors go into
    the encoder's last layers and the decoder's first ones, so reconstructions stay the same.
    Without `quant` layers only. Returns a new network.
    """
    if net.config.quant:
        raise ValueError("only an autoencoder without quant layers can be rescaled by channel")
    net = deepcopy(net)
    encoder, decoder, latent = net.encoder, net.decoder, net.config.latent
    deviation = net.encode(images).mode.std((0, 2, 3))  # (latent,)
    head, bias = encoder.head.conv.weight, encoder.head.conv.bias
    assert bias is not None
    head[:latent] /= deviation[:, None, None, None]
    bias[:latent] /= deviation
    bias[latent:] -= 2 * deviation.log()
    decoder.stem.weight *= deviation[:, None, None]
    if encoder.skip is not None and decoder.skip is not None:
        assert encoder.skip.bias is not None
        encoder.skip.weight /= deviation[:, None, None, None]
        encoder.skip.bias /= deviation
        decoder.skip.weight *= deviation[:, None, None]
    return net


HELD_OUT, AT_ONCE = 32, 8  # pictures that tell which checkpoint is best


class Batch(NamedTuple):
    images: Tensor  # (B, 3, H, W) in [-1, 1]
    step: int


class AutoencoderStage:
    """Reconstruction, what regularises the latent, and from a given step on a discriminator.

    Two groups are trained, each by its own optimizer: "nets", and "discriminator" where there is
    one. A Gaussian latent is drawn towards N(0, I); a codebook is drawn to its latents.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        stream: Stream,
        losses: Losses,
        *,
        perceptual: Perceptual | None = None,
        average: bool = False,
        noise: float | None = None,
        held_out: Stream | None = None,
        seed: int = 0,
        export: Callable[[nn.ModuleDict, Path], None] = lambda nets, folder: None,
    ):
        """perceptual: what compares pictures, if `losses` has such a term
        average: codes are moving averages of their latents instead of learning by gradient
        noise: the decoder alone is trained, on latents with noise of a deviation up to this:
            what a diffusion model makes is never quite clean, and its latents stay as they are
        held_out: pictures that samples are made of, and the score; without them samples are of
            the stream, and there is no score
        """
        torch.manual_seed(seed)
        self.net = autoencoder(config)
        channels_last(self.net)
        if config.shortcut:
            start_from_components(self.net, to_tensor(stream.batch(0, 256, seed).pictures))
        if noise is not None and config.codes:
            raise ValueError("a decoder alone is trained for Gaussian latents only")
        self.noise = noise
        self.net.encoder.requires_grad_(noise is None)
        self.losses, self.critics = losses, Critics(losses, perceptual)
        self.nets = nn.ModuleDict({"autoencoder": self.net})
        self.keeper: CodeKeeper | None = None
        if isinstance(self.net, AutoencoderVQ):
            self.keeper = CodeKeeper(self.net.quantizer, average=average)
            self.nets["codes"] = self.keeper
        for name in ("logvar", "discriminator"):
            if getattr(self.critics, name) is not None:
                self.nets[name] = getattr(self.critics, name)
        self.stream, self.held_out, self.export = stream, held_out, export
        self.made: tuple[Tensor, Tensor] | None = None  # the images of a batch and what became

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The weights of each optimizer."""
        groups = {"nets": [p for p in self.net.parameters() if p.requires_grad]}
        if self.critics.logvar is not None:
            groups["nets"] += self.critics.logvar.parameters()
        if self.critics.discriminator is not None:
            groups["discriminator"] = [*self.critics.discriminator.parameters()]
        return groups

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        return Batch(to_tensor(self.stream.batch(step, size, seed, rows).pictures), step)

    def loss(
        self, batch: Batch, generator: torch.Generator, group: str = "nets"
    ) -> tuple[Tensor, dict[str, float]]:
        if group == "discriminator":
            return self._judge(batch, generator)
        image, regular, terms = self.reconstruct(batch.images, generator)
        terms |= (distances := self.critics.terms(image, batch.images))
        with torch.no_grad():
            terms["psnr"] = -10 * torch.log10((image - batch.images).square().mean() / 4)
        nll = self.critics.nll(image, distances)
        total = nll + regular
        if self.critics.active(batch.step):
            push, more = self.critics.persuade(image, nll, self.net.last_layer)
            total, terms = total + push, terms | more
            self.made = batch.images, image.detach()
        if self.critics.logvar is not None:
            terms["logvar"] = self.critics.logvar[0]
        return total, numbers(terms)

    def reconstruct(
        self, images: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The pictures again, the weighted loss of the latent, and numbers to report."""
        net = self.net
        if isinstance(net, AutoencoderKL):
            latent = net.encode(images)
            noise = normal(latent.mean.shape, generator).to(images.device)
            if self.noise is not None:
                strength = self.noise * uniform((len(images), 1, 1, 1), generator).to(noise)
                return net.decode(latent.mode + strength * noise), noise.new_zeros(()), {}
            kl = latent.kl().mean()
            return net.decode(latent.sample(noise)), self.losses.kl * kl, {"kl": kl}
        assert isinstance(net, AutoencoderVQ) and self.keeper is not None
        z = net.encode(images).mode
        quantized = net.quantize(z)
        by_gradient = 0.0 if self.keeper.average else self.losses.codebook
        loss = codebook_loss(z, quantized.picked, by_gradient, self.losses.commitment)
        if torch.is_grad_enabled():
            self.keeper.update(net.quantizer, z.detach(), quantized.indices, generator)
        terms = {
            "codebook": loss,
            "perplexity": perplexity(quantized.indices, net.config.codes),
            "alive": self.keeper.alive(),
        }
        return net.decode_codes(quantized.z), loss, terms

    def _judge(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if not self.critics.active(batch.step):
            return batch.images.new_zeros(()), {}  # no gradient: the group waits
        # What the other group made of this batch is at hand, unless it came in several parts.
        if self.made is not None and self.made[0] is batch.images:
            image = self.made[1]
        else:
            with torch.no_grad():
                image = self.reconstruct(batch.images, generator)[0]
        self.made = None
        loss, terms = self.critics.judge(image, batch.images)
        return loss, numbers(terms)

    @torch.no_grad()
    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Pictures, held-out ones if there are any, above their reconstructions."""
        net: Any = nets["autoencoder"]
        pictures = (self.held_out or self.stream).batch(0, 8, 1).pictures
        images = to_tensor(pictures).to(next(net.parameters()).device)
        contact_sheet([pictures, to_pictures(net.decode(net.encode(images).mode))], path)

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """How far reconstructions of held-out pictures are off, None where none are held out.

        The distance is the loss's, without what regularises and without the discriminator: the
        `val/rec_loss` by which CompVis/latent-diffusion keeps its best.
        """
        if self.held_out is None:
            return None
        net: Any = nets["autoencoder"].eval()
        images = to_tensor(self.held_out.batch(0, HELD_OUT, 1).pictures)
        generator, total = torch.Generator().manual_seed(0), 0.0
        for some in images.to(next(net.parameters()).device).split(AT_ONCE):
            latent = net.encode(some).mode
            if self.noise is not None:  # of the mean strength, and always the same
                noise = torch.randn(latent.shape, generator=generator).to(latent)
                latent = latent + self.noise / 2 * noise
            terms = self.critics.terms(net.decode(latent), some)
            total += self.critics.distance(terms).item() * len(some)
        return total / len(images)


def numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    """What is reported of a step."""
    return {name: term.item() for name, term in terms.items()}
