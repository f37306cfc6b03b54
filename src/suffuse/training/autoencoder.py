"""Stage one: the autoencoder (2112.10752, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pixel_unshuffle

from suffuse.data.emoji import World
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.networks.blocks import channels_last
from suffuse.networks.families import silence


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


def laplacian_loss(a: Tensor, b: Tensor, levels: int = 4) -> Tensor:
    """L1 between Laplacian pyramids, coarse bands weighing more (Lap1 of 1707.05776, section 3.1).

    A perceptual term that needs no trained network: an edge that is a little off costs less than
    one that is missing. The gradient reaches every pixel of `a`.
    """
    total, difference = a.new_zeros(()), a - b
    for level in range(levels):
        coarse = avg_pool2d(difference, 2)
        band = difference - interpolate(coarse, scale_factor=2.0)
        total = total + 2.0**level * band.abs().mean()
        difference = coarse
    return total + 2.0**levels * difference.abs().mean()


@torch.no_grad()
def start_from_components(net: AutoencoderKL, images: Tensor, logvar: float = -6.0) -> None:
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


class AutoencoderStage:
    """L1 + Laplacian pyramid + KL on scenes made as they are needed."""

    def __init__(
        self,
        config: AutoencoderConfig,
        world: World,
        *,
        kl: float = 1e-6,
        perceptual: float = 0.25,
        seed: int = 0,
        export: Callable[[nn.ModuleDict, Path], None] = lambda nets, folder: None,
    ):
        torch.manual_seed(seed)
        self.net = AutoencoderKL(config)
        channels_last(self.net)
        if config.shortcut:
            start_from_components(self.net, to_tensor(world.batch(0, 256, seed=seed)[0]))
        self.nets = nn.ModuleDict({"autoencoder": self.net})
        self.world, self.kl, self.perceptual, self.export = world, kl, perceptual, export

    def batch(self, step: int, size: int, seed: int) -> Tensor:
        return to_tensor(self.world.batch(step * size, size, seed=seed)[0])

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        latent = self.net.encode(batch)
        noise = torch.randn(latent.mean.shape, generator=generator).to(batch.device)
        image = self.net.decode(latent.sample(noise))
        l1 = (image - batch).abs().mean()
        bands = laplacian_loss(image, batch)
        kl = latent.kl().mean()
        with torch.no_grad():
            psnr = -10 * torch.log10((image - batch).square().mean() / 4)
        terms = {"psnr": psnr, "l1": l1, "bands": bands, "kl": kl}
        numbers = {name: term.item() for name, term in terms.items()}
        return l1 + self.perceptual * bands + self.kl * kl, numbers

    @torch.no_grad()
    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Held-out scenes above their reconstructions."""
        net: Any = nets["autoencoder"]
        pictures = self.world.batch(0, 8, seed=1, split="test")[0]
        again = net.decode(net.encode(to_tensor(pictures)).mode)
        contact_sheet([pictures, to_pictures(again)], path)
