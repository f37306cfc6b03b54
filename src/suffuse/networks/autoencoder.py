"""Autoencoders with a diagonal Gaussian or a codebook in their middle (2112.10752, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from suffuse.errors import SuffuseError
from suffuse.networks.attention import PixelAttention
from suffuse.networks.blocks import Downsample, ResBlock, Upsample
from suffuse.networks.quantizer import Quantized, VectorQuantizer
from suffuse.networks.unet import Head

EPS = 1e-6  # every norm of the autoencoder; the U-Net's residual blocks use 1e-5


@dataclass(frozen=True)
class AutoencoderConfig:
    """The defaults are Stable Diffusion's f = 8. With n + 1 `channels` it is patch * 2^n.

    `attention` lists resolutions: at those, attention follows each residual block. As in CompVis'
    configurations they are counted from pictures of `resolution` pixels a side, whatever the size
    of the pictures that come.

    `codes` > 0 puts a codebook of so many vectors in the middle instead of a Gaussian.

    `patch` > 1 folds patch x patch pixels into channels before the first convolution and unfolds
    them after the last: residual blocks at full resolution cost most and learn least.

    `shortcut` adds a linear map between the pixels of a cell and its latent, both ways (a learned
    form of the space-to-channel shortcut of 2410.10733): the networks then only have to learn what
    a principal component analysis does not know.

    `decoder` gives its levels channels of their own where they are not the encoder's: with more
    levels than the encoder, and so a smaller patch, edges fall where they belong and not on the
    borders of cells. Its last level has as many channels as the encoder's.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent: int = 4
    image: int = 3
    groups: int = 32
    patch: int = 1
    mid_attention: bool = True
    quant: bool = True  # 1 x 1 convolutions on both sides of the latent; SD3 has none
    shortcut: bool = False
    attention: tuple[int, ...] = ()
    resolution: int = 256
    codes: int = 0
    decoder: tuple[int, ...] = ()

    @property
    def attends(self) -> tuple[bool, ...]:
        """Whether each level has attention, from the image inwards."""
        side = self.resolution // self.patch
        return tuple(side >> level in self.attention for level in range(len(self.channels)))

    @property
    def mirrored(self) -> AutoencoderConfig:
        """The configuration whose encoder this one's decoder is the mirror of.

        Raises SuffuseError for a decoder of more levels than the factor has halvings.
        """
        if not self.decoder:
            return self
        patch, rest = divmod(self.factor, 2 ** (len(self.decoder) - 1))
        if rest:
            raise SuffuseError(f"a decoder of {len(self.decoder)} levels has no f = {self.factor}")
        return replace(self, channels=self.decoder, patch=patch, decoder=())

    def attending(self, levels: Sequence[bool]) -> AutoencoderConfig:
        """The same with attention at these levels, from the image inwards."""
        side = self.resolution // self.patch
        chosen = tuple(side >> level for level, attends in enumerate(levels) if attends)
        return replace(self, attention=chosen)

    @property
    def moments(self) -> int:
        """Channels that the encoder makes: mean and log-variance, or the latent alone."""
        return self.latent if self.codes else 2 * self.latent

    @property
    def factor(self) -> int:
        """Pixels to one latent cell along each side."""
        return self.patch * 2 ** (len(self.channels) - 1)


class Posterior(Protocol):
    """What an encoder says of a latent."""

    @property
    def mode(self) -> Tensor: ...
    def sample(self, noise: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Point:
    """A latent without doubt: mode (B, C, H, W)."""

    mode: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        return self.mode


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, exp(logvar)), both (B, C, H, W)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of(cls, moments: Tensor) -> DiagonalGaussian:
        """moments (B, 2C, H, W); the log-variance is clamped as CompVis does."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def mode(self) -> Tensor:
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """The draw that standard normal `noise` (B, C, H, W) stands for."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL to N(0, I) in nats, summed over each image: (B,)."""
        terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.sum(dim=(1, 2, 3))


class Middle(nn.Module):
    """residual block, attention, residual block."""

    def __init__(self, width: int, groups: int, attention: bool):
        super().__init__()
        self.res = nn.ModuleList(ResBlock(width, width, groups=groups, eps=EPS) for _ in range(2))
        self.attn = PixelAttention(width, groups) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.res[0](x)
        return self.res[1](x if self.attn is None else self.attn(x))


class Rung(nn.Module):
    """Residual blocks at one resolution, then the change to the next."""

    def __init__(
        self,
        widths: list[int],
        out: int,
        groups: int,
        resample: nn.Module | None,
        attention: bool = False,
    ):
        super().__init__()
        self.res = nn.ModuleList(ResBlock(w, out, groups=groups, eps=EPS) for w in widths)
        self.attn = nn.ModuleList(PixelAttention(out, groups) for _ in widths if attention)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.res):
            x = block(x)
            x = self.attn[i](x) if self.attn else x
        return x if self.resample is None else self.resample(x)


class Encoder(nn.Module):
    """image (B, 3, H, W) in [-1, 1] -> moments (B, 2 * latent, H/f, W/f); latent, with codes."""

    def __init__(self, c: AutoencoderConfig):
        super().__init__()
        self.patch = c.patch
        self.stem = nn.Conv2d(c.image * c.patch**2, c.channels[0], 3, padding=1)
        rungs, width, last = [], c.channels[0], len(c.channels) - 1
        for level, out in enumerate(c.channels):
            shrink = Downsample(out, symmetric=False) if level < last else None
            widths = [width] + [out] * (c.blocks - 1)
            rungs.append(Rung(widths, out, c.groups, shrink, c.attends[level]))
            width = out
        self.down = nn.ModuleList(rungs)
        self.mid = Middle(width, c.groups, c.mid_attention)
        self.head = Head(width, c.moments, groups=c.groups, eps=EPS)
        self.factor = c.factor
        self.skip = nn.Conv2d(c.image * c.factor**2, c.latent, 1) if c.shortcut else None

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(pixel_unshuffle(image, self.patch) if self.patch > 1 else image)
        for rung in self.down:
            x = rung(x)
        moments = self.head(self.mid(x))
        if self.skip is None:
            return moments
        mean = self.skip(pixel_unshuffle(image, self.factor))  # (B, latent, H/f, W/f)
        rest = moments.shape[1] - mean.shape[1]  # none of it to the variance
        return moments + pad(mean, (0, 0, 0, 0, 0, rest))


class Decoder(nn.Module):
    """latent (B, latent, h, w) -> image (B, 3, f*h, f*w), about [-1, 1]."""

    def __init__(self, c: AutoencoderConfig):
        super().__init__()
        c = c.mirrored
        self.patch = c.patch
        width = c.channels[-1]
        self.stem = nn.Conv2d(c.latent, width, 3, padding=1)
        self.mid = Middle(width, c.groups, c.mid_attention)
        rungs = []
        for level, out in reversed(list(enumerate(c.channels))):
            grow = Upsample(out) if level else None
            widths = [width] + [out] * c.blocks
            rungs.append(Rung(widths, out, c.groups, grow, c.attends[level]))
            width = out
        self.up = nn.ModuleList(rungs)
        self.head = Head(width, c.image * c.patch**2, groups=c.groups, eps=EPS)
        self.factor = c.factor
        self.skip = nn.Conv2d(c.latent, c.image * c.factor**2, 1) if c.shortcut else None

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.stem(z))
        for rung in self.up:
            x = rung(x)
        x = self.head(x)
        x = pixel_shuffle(x, self.patch) if self.patch > 1 else x
        return x if self.skip is None else x + pixel_shuffle(self.skip(z), self.factor)


class Autoencoder(nn.Module):
    """Encoder and decoder. Latents are raw: the system applies the scale."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        m, c = config.moments, config.latent
        self.quant = nn.Conv2d(m, m, 1) if config.quant else None
        self.post_quant = nn.Conv2d(c, c, 1) if config.quant else None

    def encode(self, image: Tensor) -> Posterior:
        """image (B, 3, H, W) in [-1, 1], H and W divisible by the factor."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Raw latent (B, C, h, w) -> image (B, 3, f*h, f*w)."""
        return self.decoder(z if self.post_quant is None else self.post_quant(z))

    def moments(self, image: Tensor) -> Tensor:
        """What the encoder makes of an image, (B, moments, h, w)."""
        moments = self.encoder(image)
        return moments if self.quant is None else self.quant(moments)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which gradients of two losses are compared (2012.09841, eq. 7)."""
        return self.decoder.head.conv.weight


class AutoencoderKL(Autoencoder):
    """A diagonal Gaussian in the middle, drawn towards N(0, I)."""

    def encode(self, image: Tensor) -> DiagonalGaussian:
        """image (B, 3, H, W) in [-1, 1], H and W divisible by the factor."""
        return DiagonalGaussian.of(self.moments(image))


class AutoencoderVQ(Autoencoder):
    """A codebook in the middle, on the decoder's side of the latent.

    A diffusion model sees what the encoder made, and its own results are brought to the codebook
    when they are decoded (2112.10752, section 3.1; CompVis' `VQModelInterface`). Where the latent
    shall be codes already, as in VQGAN, it is `quantize(encode(image).mode).z`; decoding finds the
    same codes again.
    """

    def __init__(self, config: AutoencoderConfig):
        if not config.quant:
            raise ValueError("an autoencoder with codes has 1 x 1 convolutions around them: quant")
        super().__init__(config)
        self.quantizer = VectorQuantizer(config.codes, config.latent)

    def encode(self, image: Tensor) -> Point:
        """image (B, 3, H, W) in [-1, 1], H and W divisible by the factor -> before the codes."""
        return Point(self.moments(image))

    def quantize(self, z: Tensor) -> Quantized:
        """Raw latent (B, C, h, w) -> codes."""
        return self.quantizer(z)

    def decode(self, z: Tensor) -> Tensor:
        """Raw latent (B, C, h, w), codes or not -> image (B, 3, f*h, f*w)."""
        return self.decode_codes(self.quantize(z).z)

    def decode_codes(self, z: Tensor) -> Tensor:
        """Codes (B, C, h, w), as `quantize` makes them -> image (B, 3, f*h, f*w)."""
        return super().decode(z)


def autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """The autoencoder of a configuration, with fresh weights."""
    return AutoencoderVQ(config) if config.codes else AutoencoderKL(config)
